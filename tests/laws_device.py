"""Laws of devices: everything that computes does so where its data lie, and nothing that repeats waits for the device.

Held on the accelerator that is at hand, and where there is none on a pretend one (`pretend.py`). Each law runs over a
table of the house, does the same on the CPU, and asks for

- *one place*: no operation mixes devices, and the result is the CPU's within float32;
- *no wait*: within a step of a walk or of training the host asks the device for nothing. Where it must, `MAY_WAIT` says
  why.
"""

import copy
import dataclasses
import inspect
import math
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pretend
import pytest
import torch
from laws import SLOW, WAYS
from pretend import NAME, POSSIBLE, posed, waits
from sure import Cli
from test_condition import PARTS, SPECS, B
from test_laws_guidance import ARGUMENTS
from test_metrics_lite import eyes

import ornstein
from ornstein import VP, Condition, Flow, NetDenoiser, log_likelihood, ranks, trajectory
from ornstein.core.categories import Categories
from ornstein.core.chains import Tabulated
from ornstein.core.copies import beside
from ornstein.core.denoiser import Denoiser
from ornstein.core.exact import Empirical, Gaussian, GaussianMixture, LowRank
from ornstein.core.learner import Problem
from ornstein.core.walk import end
from ornstein.data.transform import WholeNumbers
from ornstein.discrete import Absorbing, AnyOrder, MaskedColumns, MaskedCrossEntropy, MaskedNet, bound, unmask
from ornstein.discrete.details import Trusted, kept_back
from ornstein.discrete.waves import Placed
from ornstein.distill import fit_endpoint
from ornstein.energies import EnergyDenoiser, MaximumLikelihood, Moves, NoiseContrastive, log_partition, modes
from ornstein.experiment.build import load_data
from ornstein.experiment.config import Experiment
from ornstein.experiment.folder import accept
from ornstein.experiment.learner import LEARNERS
from ornstein.experiment.settle import settle
from ornstein.experiment.train import train
from ornstein.experiment.tune import tune, tune_endpoint
from ornstein.guidance import GUIDANCE, OPERATORS, Measurement, RePaint
from ornstein.likelihood import TRACES, fit_dequantiser, flow
from ornstein.metrics import C2ST, METRICS, fit_classifier, lite, report
from ornstein.nets import MLP, NETS, Label, Transformer
from ornstein.nets.unet import UNet
from ornstein.samplers import STEPPERS, Adaptive, encode
from ornstein.samplers.langevin import langevin, mala
from ornstein.training import fit

F64 = torch.float64
REAL = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None

pytestmark = pytest.mark.skipif(REAL is None and not POSSIBLE, reason="this torch can pose no device")

#: where the host does wait within a step, and why it must
MAY_WAIT = {
    "samplers/runge_kutta.py Adaptive._carry": "the data say how many sub-steps there are: a look when all may be in",
    "energies/moves.py Moves.__call__": "a chain of many gradients is looked at once, at its end, lest it left",
    "energies/learning.py _contrast": "an energy that has exploded is refused before it is learned from",
    "energies/levels.py Ranking.__call__": "the same",
    "samplers/langevin.py _stay": "chains that left are refused: at the end, and once in 64 steps",
    "core/exact.py GaussianMixture._selected": "a label that no component has is refused, or it would draw NaN",
    "guidance/operators.py gmres": "a small problem solved by singular values: CUDA says whether they converged",
    "core/experts.py Experts.predict": "which rows go to which expert is in their levels",
    "training/loop.py _Run.account": "the numbers of the step before, asked for when the next is queued",
}


@pytest.fixture
def device() -> Any:
    """The accelerator of this machine, else the pretend one."""
    if REAL is not None:
        exact = torch.backends.cudnn.allow_tf32
        torch.backends.cudnn.allow_tf32 = False
        yield torch.device(REAL.type, 0)
        torch.backends.cudnn.allow_tf32 = exact
        return
    with posed() as there:
        yield there


def no_wait(counted: Any) -> None:
    """What was counted is allowed."""
    left = {place: n for place, n in counted.items() if place.partition(": ")[0] not in MAY_WAIT}
    assert not left, left


def close(found: Any, expected: Any, tolerance: Any = 1e-3) -> None:
    """A result on the device is the CPU's."""
    torch.testing.assert_close(found.detach().cpu(), expected, rtol=tolerance, atol=tolerance)


def generator(device: Any = "cpu", seed: Any = 0) -> Any:
    return torch.Generator(device).manual_seed(seed)


def net(shape: Any = (2,), conditions: Any = None, out_multiple: Any = 1, config: Any = None) -> Any:
    """A small network that has learned something, if only noise."""
    made = (config or MLP(width=16, depth=1, embedding=8)).build(shape, conditions, out_multiple)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator(seed=5)))
    return made


def frozen(*arguments: Any, **named: Any) -> Any:
    return net(*arguments, **named).eval().requires_grad_(False)


def moved(thing: Any, device: Any) -> Any:
    """The same, with every tensor and module in it on the device; denoisers, classifiers, conditions and tuples."""
    if isinstance(thing, torch.nn.Module):
        return copy.deepcopy(thing).to(device)
    if isinstance(thing, torch.Tensor | Condition):
        return thing.to(device)
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        fields = {f.name: moved(getattr(thing, f.name), device) for f in dataclasses.fields(thing) if f.init}
        return dataclasses.replace(thing, **fields)
    return thing


@pytest.mark.skipif(REAL is not None, reason="a real one is at hand")
def test_the_pretend_device_refuses_and_counts() -> None:
    ask: dict[str, Callable[[torch.Tensor], Any]] = {
        "item": lambda x: x.sum().item(), "tolist": lambda x: x.tolist(), "if": lambda x: bool(x.any()),
        "float": lambda x: float(x[0]), "mask": lambda x: x[x > 1], "list": lambda x: x[[0, 1]],
        "index": lambda x: x[torch.tensor([0, 1])], "cpu": lambda x: x.cpu(), "nonzero": lambda x: x.nonzero(),
        "from Python": lambda x: torch.tensor([1.0], device=x.device), "unpinned": lambda x: torch.ones(2).to(x.device),
        "waiting copy": lambda x: torch.ones(2).pin_memory().to(x.device), "new_tensor": lambda x: x.new_tensor([1.0]),
        "event": lambda x: torch.get_device_module(x.device).Event().synchronize(),
        "write": lambda x: x.copy_(torch.ones(3)),
        "all": lambda x: torch.accelerator.synchronize(), "solve": lambda x: torch.linalg.cholesky(torch.diag(x + 1)),
    }  # fmt: skip
    let_be: dict[str, Callable[[torch.Tensor], Any]] = {
        "full": lambda x: x.new_full((2,), 3.0), "mask": lambda x: x.masked_fill_(x > 1, 0.0),
        "fill": lambda x: x.__setitem__(x > 1, 0.0), "scalar": lambda x: x + torch.tensor(2.0),
        "pinned": lambda x: torch.ones(2).pin_memory().to(x.device, non_blocking=True),
        "later": lambda x: x.to("cpu", non_blocking=True), "draw": lambda x: torch.rand(3, device=x.device),
        "where": lambda x: torch.where(x > 1, x, 0.0), "place": lambda x: x[x.long().clamp(max=2)],
    }  # fmt: skip
    mix: dict[str, Callable[[torch.Tensor], Any]] = {
        "add": lambda x: x + torch.ones(3), "reversed": lambda x: x.sum() + torch.ones(3),
        "cat": lambda x: torch.cat([x, torch.ones(3)]), "stack": lambda x: torch.stack([x[0], torch.tensor(1.0)]),
        "product": lambda x: x @ torch.ones(3), "dice": lambda x: torch.rand(3, generator=generator(), device=x.device),
        "own dice": lambda x: torch.rand(3, generator=generator(x.device)), "numpy": lambda x: x.numpy(),
        "net": lambda x: torch.nn.Linear(3, 3)(x), "index of another": lambda x: torch.ones(3)[x.long().clamp(max=2)],
    }  # fmt: skip
    before = pretend._HOUSE
    with posed() as there, mock.patch.object(pretend, "_HOUSE", f"{Path(__file__).parent}/"):
        for name, what in {**ask, **let_be}.items():
            x = torch.arange(3.0, device=there)
            with waits(there) as counted:
                what(x)
            assert bool(counted) == (what in ask.values()), (name, counted)
        for what in mix.values():
            with pytest.raises(RuntimeError):
                what(torch.arange(3.0, device=there))
        assert torch.accelerator.is_available()
    assert before == pretend._HOUSE
    assert not torch.accelerator.is_available()
    assert ranks.device().type == "cpu"
    assert torch.Generator("cpu").device.type == "cpu"


def test_what_may_wait_is_there() -> None:
    for place in MAY_WAIT:
        file, _, function = place.partition(" ")
        text = (Path(ornstein.__file__).parent / file).read_text()
        assert f"def {function.rpartition('.')[2]}(" in text, place


def walked(denoiser: Any, device: Any, stepper: Any, x: Any, **options: Any) -> Any:
    """The samples, and what was waited for after the walk was prepared."""
    states = trajectory(denoiser, x.shape, stepper=stepper, seed=1, x=x, **options)
    with waits(device) as counted:
        for state in states:
            last = state.x
    return last, counted


#: of each tolerance, the coarsest, whose sub-steps are those of a finer one but fewer; on a chain, whose table is a
#: constant too, each in one way is enough
COARSE = Adaptive(0.1)
WALKS: list[tuple[Any, Any]] = [(way, VP()) for way in WAYS if not isinstance(way, Adaptive)] + [
    (make(), Tabulated.from_betas("linear", 50)) for make in STEPPERS.values() if make is not Adaptive
]
WALKS += [(COARSE, process) for _, process in (WALKS[0], WALKS[-1])]


@pytest.mark.parametrize(("stepper", "process"), WALKS, ids=repr)
def test_every_stepper(stepper: Any, process: Any, device: Any) -> None:
    there = NetDenoiser(net().to(device).requires_grad_(False), process)
    here = NetDenoiser(frozen(), process)
    x, steps = torch.randn(3, 2, generator=generator()), 4 if (stepper.calls or 99) < 9 else 2
    if stepper.calls is None:
        walked(there, device, stepper, x, steps=steps)  # brings over the tables of its sub-steps
    last, counted = walked(there, device, stepper, x, steps=steps)
    assert last.device == device
    no_wait(counted)
    close(last, walked(here, torch.device("cpu"), stepper, x, steps=steps)[0])


def test_adaptive_looks_at_the_device_in_fewer_than_half_of_its_sub_steps(device: Any) -> None:
    there = NetDenoiser(net().to(device).requires_grad_(False), VP())
    x = torch.randn(4, 2, generator=generator())
    states = trajectory(there, x.shape, stepper=Adaptive(1e-5), seed=1, x=x, steps=1)
    with waits(device) as counted:
        calls = [state.calls for state in states][-1]
    looks = sum(n for place, n in counted.items() if place.startswith("samplers/runge_kutta.py Adaptive._carry"))
    if device.type in (NAME, "cuda"):
        assert 2 <= looks < calls / 12, (looks, calls)  # six calls in a sub-step


@pytest.mark.parametrize("name", GUIDANCE)
def test_every_guidance(name: Any, device: Any) -> None:
    """Whatever it is made with may lie on the CPU, as a person has it: it is brought over once."""
    labels = torch.tensor([0, 2, -1])
    base = NetDenoiser(frozen(conditions={"label": Label(3)}), VP())
    needed = inspect.signature(GUIDANCE[name]).parameters
    arguments: dict[str, Any] = {key: value for key, value in ARGUMENTS.items() if key in needed}
    far = dict(arguments)
    if "weaker" in far:
        arguments["weaker"] = NetDenoiser(frozen(conditions={"label": Label(3)}), VP())
        far["weaker"] = moved(arguments["weaker"], device)
    if "classifier" in far:
        learned = frozen(out_multiple=2)
        arguments["classifier"] = dataclasses.replace(far["classifier"], net=learned)
        far["classifier"] = moved(arguments["classifier"], device)
    here, there = GUIDANCE[name](base, **arguments), GUIDANCE[name](moved(base, device), **far)
    x = torch.randn(3, 2, generator=generator())
    walked(there, device, "ddpm", x, steps=1, condition=labels)  # constants are brought over
    last, counted = walked(there, device, "ddpm", x, steps=4, condition=labels)
    no_wait(counted)
    close(last, walked(here, torch.device("cpu"), "ddpm", x, steps=4, condition=labels)[0])
    t = torch.tensor([0.1, 0.4, 0.9])  # a level for each sample, as a training step has it
    with waits(device) as counted:
        found = there(x.to(device), t.to(device), labels.to(device)).x0
    close(found, here(x, t, labels).x0)


def operators() -> Any:
    """Every operator of the table, as it is made for pictures of 4 x 4."""
    row = torch.randn(5, 16, generator=generator(seed=3))
    options = {
        "mask": (torch.arange(16).reshape(1, 4, 4) % 3 > 0,), "matrix": (row,), "function": (torch.sin,),
        "blur": (0.7,), "downsample": (2,),
    }  # fmt: skip
    return {name: OPERATORS[name](*options.get(name, ())) for name in OPERATORS}


@pytest.mark.parametrize("method", ["dps", "pigdm", "moment-matching", "replacement", "repaint"])
@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_with_every_method(name: Any, method: Any, device: Any) -> None:
    operator = operators()[name]
    if method in ("replacement", "repaint") and not operator.linear:
        pytest.skip("takes linear operators alone")
    base = NetDenoiser(frozen((1, 4, 4)).double(), VP())
    x = torch.randn(2, 1, 4, 4, generator=generator(), dtype=F64)
    measured = Measurement(operator, operator.apply(0.1 * x[:1]), 0.0 if method == "repaint" else 0.1)
    results = []  # in float64: GMRES magnifies rounding
    for den, where in ((base, torch.device("cpu")), (moved(base, device), device)):
        stepper = RePaint(STEPPERS["ddpm"](), measured, repeats=2) if method == "repaint" else "ddpm"
        guided = den if method == "repaint" else GUIDANCE[method](den, measurement=measured)
        walked(guided, where, stepper, x, steps=2, dtype=F64)  # constants are brought over
        last, counted = walked(guided, where, stepper, x, steps=2, dtype=F64)
        no_wait(counted)
        results.append(last)
    close(results[1], results[0])


@pytest.mark.parametrize("name", NETS)
def test_every_network_with_every_kind_of_condition(name: Any, device: Any) -> None:
    small = {
        "mlp": MLP(width=16, depth=1, embedding=8), "unet": UNet(8, (1, 2), 1, (2,), embedding=8),
        "transformer": Transformer(width=16, depth=1, heads_width=8, embedding=8),
    }  # fmt: skip
    config = small.get(name, NETS[name]())
    here = net((2, 4, 4), SPECS, config=config).train()
    there = copy.deepcopy(here).to(device)
    x, condition = torch.randn(B, 2, 4, 4, generator=generator()), Condition(PARTS)
    level = torch.linspace(-2, 2, B)
    far = x.to(device), level.to(device), condition.to(device).parts
    for parts, told in ((condition.parts, far[2]), ({}, {})):
        with waits(device) as counted:
            out = there(*far[:2], told)
            out.square().sum().backward()
        no_wait(counted)
        expected = here(x, level, parts)
        expected.square().sum().backward()
        close(out, expected)
    for p, q in zip(there.parameters(), here.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if q.grad is not None:
            close(p.grad, q.grad)


def taught(learner: str, objective: str) -> Any:
    """The objective as it teaches this learner."""
    made = LEARNERS[learner].objectives[objective]
    options: dict[str, Any] = {"shares": (0.5, 0.3, 0.2)} if objective == "classifier" else {}
    if "corrections" in inspect.signature(made).parameters:
        options["corrections"] = 4  # a step of a chain is like the one before
    return made(**options)


def held(learner: str, objective: str) -> bool:
    """Whether they are held to the law below."""
    if not {"v", "energy"} & LEARNERS[learner].readings.keys():
        return False  # of tokens, which have a law of their own below, or between two data sets
    teach = taught(learner, objective)
    if getattr(teach, "learns_variance", False) != (learner == "variance"):
        return False  # another learner's
    if learner == "prior":
        return objective == "flow"  # its networks are taught as any denoiser is, by each of these
    # which neither leaves cells out nor teaches stages
    return learner not in ("filling", "cascade") or getattr(teach, "gaps", False)


#: energies last: what others are taught by too is quicker with them
LEARNING = sorted(LEARNERS, key=lambda each: each == "energy")
LESSONS = [(each, by) for each in LEARNING for by in LEARNERS[each].objectives if held(each, by)]


def covering(times: int) -> list[tuple[str, str]]:
    """Lessons in which each learner and each objective is so many times, or as often as it can be.

    What a learner or an objective leaves on the other device or waits for, it does with any partner.
    """
    kept: list[tuple[str, str]] = []
    for pair in LESSONS:
        if any([each[k] for each in kept].count(pair[k]) < times for k in (0, 1)):
            kept.append(pair)
    return kept


CASES = [
    pytest.param(*pair, VP(), id="-".join((*pair, "vp")), marks=[] if pair in covering(2) else SLOW) for pair in LESSONS
]
# a chain's table is a constant too: on it each learner once, and each objective once
CASES += [
    pytest.param(*pair, Tabulated.from_betas("linear", 50), id="-".join((*pair, "betas"))) for pair in covering(1)
]


@pytest.mark.parametrize(("learner", "objective", "process"), CASES)
def test_every_objective_of_every_learner(learner: Any, objective: Any, process: Any, device: Any) -> None:
    """Once by the CPU's random numbers, to compare; once by the device's own, to count."""
    cls, teach = LEARNERS[learner], taught(learner, objective)
    predicts = next(name for name in ("v", "energy") if name in cls.readings)
    labels = torch.tensor([0, 2, -1, 1] * 2)
    conditions = {} if objective in ("maximum-likelihood", "classifier") else {"label": Label(3)}
    sample = (1, 4) if learner in ("cascade", "prior") else (2,)  # which these halve
    known = cls(Problem(process, predicts, teach, sample, 1.0, 3, conditions, taught_by=objective))
    here = known.network(lambda shape, told, multiple=1: net(shape, conditions=told, out_multiple=multiple))
    here.eval()  # dropout draws from the device's own numbers
    there = copy.deepcopy(here).to(device)
    x0 = torch.randn(8, *sample, generator=generator())
    condition = None if objective == "maximum-likelihood" else labels
    memory = known.memory(known.model(here), x0, condition)
    far = {key: value.to(device) for key, value in memory.items()}

    def lesson(network: Any, where: Any, dice: Any, kept: Any) -> Any:
        told = None if condition is None else condition.to(where)
        return known.loss(known.model(network), x0.to(where), told, dice, {k: v.clone() for k, v in kept.items()})

    found, expected = lesson(there, device, generator(), far), lesson(here, "cpu", generator(), memory)
    close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    for p, q in zip(there.parameters(), here.parameters(), strict=True):
        if q.grad is not None:
            close(p.grad, q.grad, 1e-2)
    lesson(there, device, generator(device), far)  # brings over what goes with the generator
    dice = generator(device)
    with waits(device) as counted:
        loss = lesson(there, device, dice, far)
        loss.sum().backward()
    assert loss.shape == (8,)
    assert bool(loss.isfinite().all())
    no_wait(counted)


@pytest.mark.parametrize("smooth", [False, True])
def test_masked_tokens_are_taught_and_drawn(device: Any, smooth: bool) -> None:
    along = ((-0.5, 0.0, 0.5), (-0.1, 0.1) * 3, ())
    categories = Categories((3, 2, 4), (-1, 0, -1), along, within=((), (2, 1, 2), ()))
    here = Trusted(Placed(MLP(width=8, depth=1).build, categories, {}, 4, smooth, 0.3), categories)
    for p in here.parameters():
        torch.nn.init.normal_(p, 0.0, 0.3, generator=generator())
    there = copy.deepcopy(here).to(device)
    near, far = (MaskedNet(each, Absorbing(), categories) for each in (here, there))
    codes = torch.stack([torch.randint(k, (8,), generator=generator()) for k in categories.sizes], 1)
    codes[:, 1] *= codes[:, 0] != 1
    x0, teach = categories.one_hot(codes), MaskedCrossEntropy(0.5, 0.0)
    kept = kept_back(categories, x0.to(device), 0.5)
    assert torch.equal(kept.cpu(), kept_back(categories, x0, 0.5))
    taught = dataclasses.replace(far, kept=kept), dataclasses.replace(near, kept=kept.cpu())
    close(teach(taught[0], x0.to(device), None, generator()), teach(taught[1], x0, None, generator()))
    found, expected = (end(unmask(model, 16, AnyOrder(), seed=1)).x for model in (far, near))
    close(found, expected)
    trees = {"which": torch.tensor([[0, 1]]), "above": torch.tensor([[1.5, 0.5]])}
    trees |= {"value": torch.tensor([[0.3, -1.0, 0.8, 0.2]]), "limit": torch.tensor(0.5)}
    problem = Problem(Absorbing(), "classes", teach, (categories.width,), categories=categories)
    walks = MaskedColumns(problem, trees=1)
    close(*(end(walks.walk(walks.with_critic(m, trees), 64, AnyOrder(), None, seed=1)).x for m in (far, near)))
    close(bound(far, x0, torch.arange(8))[0], bound(near, x0, torch.arange(8))[0])


def exact_ones() -> Any:
    """Exact distributions, one of each form of covariance."""
    means, g = torch.randn(3, 4, generator=generator(), dtype=F64), generator(seed=2)
    roots = torch.randn(3, 4, 4, generator=g, dtype=F64)
    weights, labels = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0, 1, 1])
    return {
        "full": lambda at: GaussianMixture(weights, means.to(at), (roots @ roots.mT).to(at), labels),
        "diagonal": lambda at: GaussianMixture(weights, means.to(at), roots[:, 0].square().to(at), labels),
        "white": lambda at: GaussianMixture(weights, means.to(at), roots[:, 0, 0].square().to(at), labels),
        "low rank": lambda at: GaussianMixture(weights, means.to(at), LowRank(roots[:, :, :1], weights), labels),
        "gaussian": lambda at: Gaussian(means[0].to(at), 0.3),
        "points": lambda at: Empirical(means.to(at), labels.to(at)),
    }


@pytest.mark.parametrize("name", exact_ones())
def test_exact_distributions(name: Any, device: Any) -> None:
    here, there = exact_ones()[name]("cpu"), exact_ones()[name](device)
    x = torch.randn(3, 4, generator=generator(seed=1))
    labels = None if name == "gaussian" else torch.tensor([0, 1, -1])
    for process in (VP(), Flow()):
        exact = there.denoiser(process)
        assert exact.device == device
        last, counted = walked(exact, device, "heun", x, steps=3, condition=labels)
        no_wait(counted)
        close(last, walked(here.denoiser(process), torch.device("cpu"), "heun", x, steps=3, condition=labels)[0])
    close(there.mean(), here.mean())
    close(there.covariance(), here.covariance())
    assert there.sample(5, generator(device)).device == device
    if name != "points":
        close(there.log_prob(x.to(device)), here.log_prob(x))
        close(there.log_prob(x), here.log_prob(x))


def test_reading_on_another_clock_and_as_an_energy(device: Any) -> None:
    small = frozen()
    x = torch.randn(3, 2, generator=generator())
    ways: list[Callable[[Any], Denoiser]] = [
        lambda n: NetDenoiser(n, VP()).on(Flow()), lambda n: EnergyDenoiser(n, VP()).on(Flow()),
    ]  # fmt: skip
    for make in ways:
        last, counted = walked(make(moved(small, device)), device, "unipc", x, steps=4)
        no_wait(counted)
        close(last, walked(make(small), torch.device("cpu"), "unipc", x, steps=4)[0])


def test_encoding_gives_what_it_gives_on_the_cpu(device: Any) -> None:
    here = NetDenoiser(frozen(), VP())
    x = torch.randn(3, 2, generator=generator())
    close(encode(moved(here, device), x, steps=4), encode(here, x, steps=4))


@pytest.mark.parametrize("adjusted", [False, True])
def test_chains_wait_for_nothing(adjusted: Any, device: Any) -> None:
    def log_prob(x: Any) -> Any:
        return -0.5 * (x - 1).square().sum(1)

    x, chain = torch.randn(4, 2, generator=generator()), (mala if adjusted else langevin)
    results: list[Any] = []
    for start in (x, x.to(device)):
        states = chain(log_prob if adjusted else lambda x: 1 - x, start, steps=3, gamma=0.1, seed=0)
        results.append(next(states))
        with waits(device) as counted:
            results[-1] = [state.x for state in states]
        no_wait(counted)
    close(results[1][-1], results[0][-1])


def test_energies(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "_DOWN", 6)
    monkeypatch.setattr(modes, "_MOVES", 4)
    here = EnergyDenoiser(frozen(), VP())
    there = moved(here, device)
    x = torch.randn(16, 2, generator=generator())
    base = Gaussian(torch.zeros(2), 2.0)
    short: dict[str, Any] = {"chains": 16, "levels": 2, "pilot": 16, "leapfrogs": 1}
    results = []
    for den, where in ((here, "cpu"), (there, device)):
        energy, dice = den.energy_at(0.5), generator()
        negatives, accepted = Moves(3, 0.05, adjusted=True)(energy, x.to(where), dice)
        learned = MaximumLikelihood(Moves(2), start="buffer")
        kept = learned.buffer(20, x.to(where), dice)
        step = learned(energy, x.to(where), dice, kept)
        contrast = NoiseContrastive(base, 2)(energy, x.to(where), dice)
        found = log_partition(energy, base, generator=dice, device=where, **short)
        results.append((negatives, accepted, step.loss, step.buffer, contrast, torch.tensor(found.value)))
    for found, expected in zip(*reversed(results), strict=True):
        close(found, expected, 1e-2)
    # the base on the device too, with the device's own random numbers
    far = Gaussian(torch.zeros(2, device=device), 2.0)
    own = log_partition(there.energy_at(0.5), far, generator=generator(device), device=device, **short)
    assert math.isfinite(own.value)
    assert NoiseContrastive(far)(there.energy_at(0.5), x.to(device), generator(device)).device == device


@pytest.fixture
def few_levels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device is asked the same at eight levels of a likelihood as at 48."""
    monkeypatch.setattr(flow, "STEPS", 8)


@pytest.mark.usefixtures("few_levels")
@pytest.mark.parametrize("trace", TRACES)
def test_likelihood(trace: Any, device: Any) -> None:
    here = NetDenoiser(frozen(conditions={"label": Label(3)}), VP())
    x = 0.3 * torch.randn(3, 2, generator=generator())
    how: dict[str, Any] = {"trace": trace, "probes": 3, "condition": torch.tensor([0, 2, -1]), "tolerance": 10.0}
    found, expected = log_likelihood(moved(here, device), x, **how), log_likelihood(here, x, **how)
    close(found.log_prob, expected.log_prob)
    assert found.log_prob.device.type == "cpu"


@pytest.mark.usefixtures("few_levels")
def test_likelihood_of_data_with_levels(device: Any) -> None:
    here, x = NetDenoiser(frozen(), VP()), torch.tensor([[0.0, 3.0], [2.0, 1.0], [1.0, 1.0]])
    transform = WholeNumbers(4)
    results = []
    for den in (here, moved(here, device)):
        fitted = fit_dequantiser(den, x, transform, steps=3)
        how: dict[str, Any] = {"transform": transform, "dequantise": fitted, "draws": 2, "tolerance": 10.0}
        results.append(log_likelihood(den, x, **how).log_prob)
    close(results[1], results[0])


@pytest.mark.parametrize("name", METRICS)
def test_every_metric(name: Any, device: Any) -> None:
    x, y = (torch.randn(24, 3, generator=generator(seed=i)) for i in range(2))
    metric = C2ST(steps=10) if name == "c2st" else METRICS[name]()  # a step is like the one before
    found, expected = metric(x.to(device), y.to(device), generator()), metric(x, y, generator())
    # a share of points told right may turn over by one of them
    assert found == pytest.approx(expected, rel=1e-3, abs=0.05 if name == "c2st" and REAL else 1e-3)


def test_how_far_apart_pictures_look(device: Any) -> None:
    here, (x, y) = eyes(), torch.rand(2, 3, 3, 16, 16, generator=generator()) * 2 - 1

    def put(layer: lite.Layer) -> lite.Layer:
        return layer[0].to(device), layer[1].to(device)

    there = lite.Network(put(here.stem), [[put(layer) for layer in block] for block in here.blocks], put(here.head))
    far = x.to(device), y.to(device)
    with waits(device) as counted:
        found = there.apart(*far)
    no_wait(counted)
    close(found, here.apart(x, y))


def test_a_report_of_sets_on_any_device(device: Any) -> None:
    x, y, z = (torch.randn(24, 1, 4, 4, generator=generator(seed=i)) for i in range(3))
    labels = torch.arange(24) % 2
    told: dict[str, Any] = (
        {"labels": labels, "train_labels": labels, "heldout_labels": labels} if REAL else {}
    )  # learning takes long
    told["repeats"] = 2
    names = ["sliced-wasserstein", "energy-distance", "memorisation"]
    expected = report(x, y, z, generator(), metrics=names, **told)
    for dice in (generator(), generator(device)):
        found = report(x.to(device), y, z.to(device), dice, metrics=names, **told)
        assert list(found.rows) == list(expected.rows)
        if dice.device.type == "cpu":  # the same draws: the same distances
            for name in names:
                assert found.rows[name].value == pytest.approx(expected.rows[name].value, rel=1e-3, abs=1e-3)


def test_a_solver_is_fitted_where_the_model_lies(device: Any) -> None:
    here = NetDenoiser(frozen(), VP())
    how: dict[str, Any] = {"count": 4, "rounds": 2, "teacher_steps": 6, "seed": 0}
    found, expected = fit_endpoint(moved(here, device), (2,), 2, **how), fit_endpoint(here, (2,), 2, **how)
    assert found.grid == pytest.approx(expected.grid, rel=1e-2)
    x = torch.randn(3, 2, generator=generator())
    last, counted = walked(moved(here, device), device, found, x, grid=found.grid)
    no_wait(counted)
    close(last, walked(here, torch.device("cpu"), found, x, grid=found.grid)[0])


def test_a_constant_is_brought_over_once_and_anew_when_it_changes(device: Any) -> None:
    constant, like = torch.tensor([1.0, 2.0]), torch.zeros(2, device=device)
    first = beside(constant, like)
    assert first.device == device
    assert beside(constant, like) is first
    assert beside(constant, torch.zeros(2)) is constant
    constant.mul_(2)
    close(beside(constant, like), torch.tensor([2.0, 4.0]))
    with torch.inference_mode():
        wide = beside(constant, like, F64)
    assert not wide.is_inference()
    unknown = torch.ones(2, requires_grad=True)
    beside(unknown, like).sum().backward()
    close(unknown.grad, torch.ones(2))


TRAININGS = {
    "denoiser": ["training.accumulate=2"],
    "classifier": ["objective=classifier"],
    "chains": ["preset=energy-likelihood", "objective.chains=32", "objective.corrections=2"],
    "adaptive": ["objective.name=bound", "objective.adaptive=true", "objective.levels=0"],
    "betas": ["process=betas"],
}


@pytest.mark.parametrize("name", TRAININGS)
def test_training_waits_for_nothing_within_a_step(name: Any, device: Any, tmp_path: Path) -> None:
    short = ["data.count=200", "net.width=16", "net.depth=1", "training.steps=7", "training.batch_size=16"]
    short += ["training.checkpoint_every=100", "training.log_every=100", "training.validate_every=100"]
    short += ["training.precision=float32"]
    experiment = Experiment.read("points", [*short, *TRAININGS[name]])
    data = load_data(experiment)
    settled = settle(experiment, data)
    config = settled.experiment.training
    built = settled.built
    progress = fit(
        built.net, built.loss(settled.memory), lambda step: data.batch(step, config.batch_size, config.seed), config,
        tmp_path / "run", memory=settled.memory,
    )  # fmt: skip
    next(progress)
    with waits(device) as counted:
        last = next(progress)
    assert last.step == 7
    assert math.isfinite(last.loss)
    assert next(built.net.parameters()).device.type == device.type
    no_wait({place: n for place, n in counted.items() if not place.startswith(SAVING)})


#: what the last step does after it: it saves
SAVING = ("training/checkpoint.py", "training/saving.py", "training/ema.py")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run on vectors, of a few steps on the CPU."""
    folder = tmp_path_factory.mktemp("runs") / "moons"
    short = ["data.count=200", "net.width=16", "net.depth=1", "training.steps=4", "training.batch_size=16"]
    short += ["training.validate_every=4", "sampling.steps=4", "training.cpu=true"]
    for _ in train(Experiment.read("points", short), folder, draws=False):
        pass
    text = (folder / "experiment.yaml").read_text()
    (folder / "experiment.yaml").write_text(text.replace("cpu: true", "cpu: false"))
    accept(folder)
    return folder


def verbs(run: Path, table: Any, place: Any) -> Any:
    """Every verb that computes; what it writes goes to `place`."""
    few = ["-n", 2, "--steps", 3]
    tiny = ["net.channels=8", "net.blocks=1", "training.steps=2", "training.batch_size=8", "training.validate_every=2"]
    damage = ["--operator", "downsample", "--with", "by=2", "--input", place / "whole.npy", "--clean"]
    return {
        "train": ["train", "digits", *tiny, "sampling.preview=2", "sampling.steps=2", "--out", place / "trained"],
        "resume": ["train", "--resume", table, "training.steps=6"],
        "sample": ["sample", run, *few, "--label", 3, "--film", "--out", place / "x.png"],
        "sample guided": ["sample", run, *few, "--label", 3, "--scale", 2, "--out", place / "y.npz"],
        "evaluate": ["evaluate", table, "-n", 20, "--steps", 2],
        "loglik": ["loglik", table, "test", "-n", 2, "--out", place / "scores.csv"],
        "inpaint": ["inpaint", run, "--input", place / "digits.npy", *few, "--out", place / "filled.png"],
        "restore": ["restore", run, *damage, *few, "--out", place / "whole.png"],
        "interpolate": ["interpolate", run, "--from", 3, "--to", 17, "-n", 3, "--steps", 4, "--out", place / "i.png"],
        "dream": ["dream", run, "--label", 3, "--scale", 2, "-n", 2, "--steps", 3, "--out", place / "d.png"],
        "dream strokes": ["dream", run, "--as", "strokes", "-n", 2, "--steps", 3, "--out", place / "s.png"],
        "tune a grid": ["tune", table, "--steps", 3],
        "tune a solver": ["tune", table, "--steps", 2, "--criterion", "endpoint", "--count", 2, "--rounds", 1],
        "plan": ["plan", "points", "data.count=200", "net.width=16", "training.batch_size=16"],
    }


@pytest.mark.parametrize("verb", verbs(Path(), Path(), Path()))
@pytest.mark.usefixtures("brief_reports", "few_levels")
def test_every_verb(
    verb: Any, cli: Cli, run: Path, table: Any, tmp_path: Path, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a device is asked the same in 10 steps of learning as in 1,000, at 20 levels as at 200, and on a walk of 40 steps
    # as on one of 1,000
    shorter: list[tuple[Any, dict[str, int]]] = [
        (tune, {"levels": 20, "count": 64}), (tune_endpoint, {"reference": 40, "fresh": 8}),
    ]  # fmt: skip
    monkeypatch.setattr("ornstein.metrics.floor.fit_classifier", partial(fit_classifier, steps=10))
    for work, few in shorter:
        inner = work.__wrapped__
        monkeypatch.setattr(inner, "__kwdefaults__", inner.__kwdefaults__ | few)
    places = tuple(shutil.copytree(folder, tmp_path / folder.name) for folder in (run, table))
    whole = torch.rand(1, 1, 8, 8, generator=generator()).mul(16).round()
    np.save(tmp_path / "whole.npy", whole.numpy())
    whole[:, :, 4:] = math.nan
    np.save(tmp_path / "digits.npy", whole.numpy())
    assert ranks.device().type == device.type
    with waits(device) as counted:
        answer = cli(*verbs(places[0], places[1], tmp_path)[verb])
    assert answer.code == 0, answer
    if device.type in (NAME, "cuda"):
        assert counted, "the device was never asked for anything"
