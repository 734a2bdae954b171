"""Laws of every network: its shapes, its silent start, and what its output may depend on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ornstein.errors import InputError
from ornstein.laws.broken import hold, near
from ornstein.nets import NetConfig

#: shapes to try: vectors, a row, small pictures of odd and even sides; a network may refuse some, not all
SHAPES = ((2,), (3, 9), (1, 8, 8), (2, 7, 6))


def nudged(net: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """The net away from its silent start, where every law would hold for the wrong reason; in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def inputs(shape: tuple[int, ...], batch: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    """x (batch, *shape) and noise levels over their whole range, (batch,)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator), torch.linspace(-12, 12, batch)


def conditions(kind: str, batch: int = 4) -> tuple[dict[str, int], Tensor | None]:
    """What to build with, and a condition in which the first row says nothing: "none", "labels" or "features"."""
    if kind == "labels":
        return {"classes": 3}, torch.arange(batch) % 4 - 1
    if kind == "features":
        cond = torch.randn(batch, 2, generator=torch.Generator().manual_seed(2))
        cond[0, 1] = torch.nan
        return {"features": 2}, cond
    return {}, None


def starts_at_zero_and_learns(config: NetConfig, shape: tuple[int, ...], kind: str) -> None:
    """Just built it returns zero, of the right shape; once it is away from there every parameter has a gradient."""
    built_with, cond = conditions(kind)
    net = config.build(shape, out_multiple=2, **built_with)
    x, level = inputs(shape)
    out, expected = net(x, level, cond), (4, 2 * shape[0], *shape[1:])
    hold(out.shape == expected, f"the output for shape {shape} is {tuple(out.shape)}; {expected} it must be.")
    hold(not out.any(), f"just built for shape {shape} it returns up to {float(out.abs().max()):.3g}; zero it must be.")
    out = nudged(net)(x, level, cond)
    hold(out.isfinite().all(), f"for shape {shape} its output is not finite.")
    hold(out.std() > 1e-3, f"for shape {shape} its output stays near zero whatever its weights.")
    # A random projection: the plain sum is blind to what the last normalisation removes.
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    silent = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    silent |= {name for name, p in net.named_parameters() if name not in silent and not p.grad.any()}  # type: ignore[union-attr]
    hold(not silent, f"for shape {shape} these parameters get no gradient: {', '.join(sorted(silent))}.")


def batch_is_its_samples(config: NetConfig, shape: tuple[int, ...]) -> None:
    """What it returns for a batch is what it returns for each sample alone."""
    net = nudged(config.build(shape, classes=3))
    x, level = inputs(shape)
    cond = torch.tensor([-1, 0, 1, 2])
    apart = torch.cat([net(x[i : i + 1], level[i : i + 1], cond[i : i + 1]) for i in range(4)])
    near(f"for shape {shape} an output in a batch", net(x, level, cond).detach(), apart.detach(), rtol=1e-4, atol=1e-5)


def condition_and_level_matter(config: NetConfig, shape: tuple[int, ...]) -> None:
    """Labels, features and noise levels are told apart; a condition that says nothing is none."""
    x, level = inputs(shape, batch=1)
    x, level = x.expand(4, *shape), torch.zeros(4)
    labelled = nudged(config.build(shape, classes=3))
    apart = torch.pdist(labelled(x, level, torch.tensor([-1, 0, 1, 2])).flatten(1))
    hold(apart.min() > 1e-3, f"for shape {shape} two labels give the same output.")
    absent = labelled(x, level, torch.full((4,), -1))
    hold(torch.equal(absent, labelled(x, level, None)), f"for shape {shape} the label -1 is not the absence of one.")
    featured = nudged(config.build(shape, features=2))
    nothing = featured(x, level, None)
    for row in ([torch.nan, torch.nan], [0.0, torch.nan]):
        absent = featured(x, level, torch.tensor([row]).expand(4, 2))
        hold(torch.equal(absent, nothing), f"for shape {shape} features {row} are not the absence of features.")
    zero = featured(x, level, torch.zeros(4, 2))
    hold((zero - nothing).abs().max() > 1e-3, f"for shape {shape} features of zero are taken for none.")
    plain = nudged(config.build(shape))
    apart = torch.pdist(plain(x, torch.tensor([-12.0, -1.0, 0.0, 12.0]), None).flatten(1))
    hold(apart.min() > 1e-3, f"for shape {shape} two noise levels give the same output.")


def weights_come_from_the_seed(config: NetConfig, shape: tuple[int, ...]) -> None:
    """The initial weights are a function of the seed alone, and the global random state is left as it was."""
    before = torch.get_rng_state()
    first, again, other = (config.build(shape, seed=seed).state_dict() for seed in (3, 3, 4))
    hold(torch.equal(before, torch.get_rng_state()), "building it draws from torch's global random state.")
    hold(all(torch.equal(first[name], again[name]) for name in first), "the same seed gives other weights.")
    hold(any(not torch.equal(first[name], other[name]) for name in first), "another seed gives the same weights.")


def _shapes(config: NetConfig) -> list[tuple[int, ...]]:
    fits: list[tuple[int, ...]] = []
    for shape in SHAPES:
        try:
            config.build(shape)
        except InputError:
            continue
        fits.append(shape)
    hold(bool(fits), f"it takes none of the shapes {', '.join(map(str, SHAPES))}.")
    return fits


def starts_silent(config: NetConfig) -> None:
    """Zero output at the start, of the right shape, and a gradient for every parameter, with each kind of condition."""
    for shape in _shapes(config):
        for kind in ("none", "labels", "features"):
            starts_at_zero_and_learns(config, shape, kind)


def treats_samples_apart(config: NetConfig) -> None:
    """A batch is its samples."""
    for shape in _shapes(config):
        batch_is_its_samples(config, shape)


def heeds_its_condition(config: NetConfig) -> None:
    """Labels, features and noise levels matter, and an absent condition is None."""
    for shape in _shapes(config):
        condition_and_level_matter(config, shape)


def begins_from_its_seed(config: NetConfig) -> None:
    """Weights are a function of the seed."""
    weights_come_from_the_seed(config, _shapes(config)[0])


LAWS: dict[str, Callable[[NetConfig], None]] = {
    law.__name__.replace("_", "-"): law
    for law in (starts_silent, treats_samples_apart, heeds_its_condition, begins_from_its_seed)
}
