"""The terms of the variational bound by time, on digits: one network, used on two chains of a thousand steps."""

import math

import torch
from matplotlib import pyplot as plt
from style import BLUE, ORANGE, save
from torch import Tensor

from ornstein import Condition, FunctionDenoiser, Tabulated
from ornstein.core.process import Level
from ornstein.data import open_data
from ornstein.nets import MLP
from ornstein.objectives import OBJECTIVES
from ornstein.objectives.bound import Bins
from ornstein.objectives.measured import variational_bound

torch.set_num_threads(1)
STEPS = 1000  # of the chains
data = open_data("digits").load()
chains = {betas: Tabulated.from_betas(betas, steps=STEPS) for betas in ("linear", "cosine")}

# a pixel has one of 17 levels: the network guesses which, and Bayes' rule adds what the noisy pixel itself says
levels = torch.linspace(-1, 1, 17).reshape(1, 17, 1, 1)
net = MLP(width=256, depth=2).build(data.shape, out_multiple=17)


def posterior_mean(x: Tensor, level: Level, condition: Condition) -> Tensor:
    told = torch.as_tensor(-0.5 * level.log_snr).flatten().clamp(-12, 12).to(x).expand(len(x))
    guess = net(x / ((level.alpha * data.sigma_data) ** 2 + level.sigma**2) ** 0.5, told)
    evidence = -0.5 * ((x - level.alpha * levels) / level.sigma) ** 2
    mean: Tensor = ((guess + evidence).softmax(1) * levels).sum(1, keepdim=True)
    return mean


denoiser = FunctionDenoiser(posterior_mean, chains["cosine"], data.sigma_data)

objective, g = OBJECTIVES["edm"](), torch.Generator().manual_seed(0)
optimiser = torch.optim.Adam(net.parameters(), lr=2e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, 1200)
for step in range(1200):
    loss = objective(denoiser, data.batch(step, 128, seed=0)[0], None, g).mean()
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()

figure, (by_time, by_noise) = plt.subplots(1, 2, figsize=(9.6, 4.2))
held_out = data.transform.forward(data.test)
for (name, chain), colour, line in zip(chains.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
    bound = variational_bound(denoiser.on(chain), held_out, bins=Bins(17), seed=0)
    bits = bound.terms.mean(0) / (bound.dims * math.log(2))  # L_T, then the steps down to L_0
    by_step = bits[1:].flip(0)  # k = 1 .. N, the decoder first
    log_snr = chain.log_snr(torch.arange(1, STEPS + 1, dtype=torch.float64))
    by_time.loglog(range(1, STEPS + 1), by_step, ls=line, color=colour, label=f"{name} betas")
    middle = (log_snr[1:] + log_snr[:-1]) / 2
    by_noise.plot(middle, by_step[1:] / -log_snr.diff(), ls=line, color=colour, lw=1.2)
    print(f"{name}: {bits.sum():.3f} bits/dim +- {bound.bits_per_dim().std() / len(held_out) ** 0.5:.3f}", end="")
    print(f", L_T {bits[0]:.1e}, L_0 {bits[-1]:.1e}, first 100 steps {by_step[:100].sum():.3f}", end="")
    print(f", dearest step {int(by_step.argmax()) + 1} at {by_step.max():.3f}")
by_time.set(title="Two chains spend their bits differently", xlabel="step k (1 touches the data)", ylim=(1e-7, 0.2))
by_time.set_ylabel("bits per dimension")
by_time.legend(loc="lower center")
# a level of grey is 1/8 in model space, and log-SNR is -2 log(sigma/alpha)
greys = {"256": 256, "64": 64, "16": 16, "4": 4, "1": 1, "¼": 0.25}
by_noise.set_xticks([-2 * math.log(grey / 8) for grey in greys.values()], greys)
by_noise.set(title="... on the same questions", xlabel="noise, in levels of grey", xlim=(-8, 9), ylim=(0, 0.42))
by_noise.set_ylabel("bits per dimension and unit of log-SNR")
save(figure)
