"""Laws of every network: its shapes, its zero output at first, and what its output may depend on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ornstein.errors import InputError
from ornstein.laws.broken import hold, near
from ornstein.nets import Label, NetConfig, Number, Part, Picture, Tokens, Vector

#: shapes to try: a vector, a sequence, small pictures with odd and even sides; a network may refuse some, but not all
SHAPES = ((2,), (3, 9), (1, 8, 8), (2, 7, 6))


def nudged(net: nn.Module, seed: int = 0, size: float = 0.1) -> nn.Module:
    """The net in evaluation mode, moved away from its zero output, at which every law would hold trivially."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator))
    return net.eval()


def inputs(shape: tuple[int, ...], batch: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    """x (batch, *shape) and noise levels (batch,) over their whole range."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, generator=generator), torch.linspace(-12, 12, batch)


#: kinds of parts of a condition
KINDS = ("label", "number", "vector", "tokens", "picture")


def conditions(kind: str, shape: tuple[int, ...], batch: int = 4) -> tuple[dict[str, Part], dict[str, Tensor]]:
    """Parts of one kind, and a condition in which the first row is absent; "several" means one of each kind."""
    generator = torch.Generator().manual_seed(2)

    def drawn(*size: int) -> Tensor:
        part = torch.randn(batch, *size, generator=generator)
        part[0] = torch.nan
        return part

    tokens = torch.tensor([[-1, -1, -1], [3, 1, 0], [2, -1, -1], [0, 1, 2]])[:batch]
    space = tuple(-(-size // 2) for size in shape[1:])  # a picture of half the sides
    every: dict[str, tuple[Part, Tensor]] = {
        "label": (Label(3), torch.arange(batch) % 4 - 1),
        "number": (Number(), drawn()),
        "vector": (Vector(2), drawn(2)),
        "tokens": (Tokens(4, 5), tokens),
        "picture": (Picture(2, space), drawn(2, *space)),
    }
    if len(shape) == 1:
        del every["picture"]
    chosen = every if kind == "several" else {name: part for name, part in every.items() if name == kind}
    return {name: part for name, (part, _) in chosen.items()}, {name: given for name, (_, given) in chosen.items()}


def starts_at_zero_and_learns(config: NetConfig, shape: tuple[int, ...], kind: str) -> None:
    """A new network returns zero, of the right shape; once it is moved from there every parameter has a gradient."""
    parts, condition = conditions(kind, shape)
    net = config.build(shape, parts, out_multiple=2)
    x, level = inputs(shape)
    out, expected = net(x, level, condition), (4, 2 * shape[0], *shape[1:])
    hold(out.shape == expected, f"the output for shape {shape} is {tuple(out.shape)}; it must be {expected}.")
    hold(not out.any(), f"new, for shape {shape}, it returns up to {float(out.abs().max()):.3g}; it must be 0.")
    out = nudged(net)(x, level, condition)
    hold(out.isfinite().all(), f"for shape {shape} its output is not finite.")
    hold(out.std() > 1e-3, f"for shape {shape} its output stays near zero for any weights.")
    # a random projection, since a plain sum does not see what the last normalisation removes
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    silent = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()}
    silent |= {name for name, p in net.named_parameters() if name not in silent and not p.grad.any()}  # type: ignore[union-attr]
    hold(not silent, f"for shape {shape} these parameters get no gradient: {', '.join(sorted(silent))}.")


def batch_is_its_samples(config: NetConfig, shape: tuple[int, ...]) -> None:
    """Its output for a batch equals its outputs for each sample alone, and one level for all rows is a level for each.

    Samples are drawn with one number that is expanded to the rows of the batch.
    """
    parts, condition = conditions("several", shape)
    net = nudged(config.build(shape, parts))
    x, level = inputs(shape)
    each = [slice(i, i + 1) for i in range(4)]
    apart = torch.cat([net(x[i], level[i], {name: part[i] for name, part in condition.items()}) for i in each])
    got = net(x, level, condition).detach()
    near(f"for shape {shape} an output in a batch", got, apart.detach(), rtol=1e-4, atol=1e-5)
    net, x, level = net.double(), x.double(), level.double()
    for told in ({}, condition):
        found = []
        for one in (level[:1].repeat(4), level[:1].expand(4)):
            net.zero_grad()
            out = net(x, one, told)
            out.square().sum().backward()
            slopes = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
            found.append(torch.cat([out.detach().flatten(), *slopes]))
        near(f"for shape {shape} an output or gradient at one level", found[1], found[0], rtol=1e-8, atol=1e-10)


def part_matters(config: NetConfig, shape: tuple[int, ...], kind: str) -> None:
    """Two values of a part give two outputs; an absent part is the same as one left out."""
    parts, condition = conditions(kind, shape)
    if not parts:
        return  # vectors take no pictures
    x, level = inputs(shape, batch=1)
    x, level = x.expand(4, *shape), torch.zeros(4)
    net = nudged(config.build(shape, parts))
    out, plain = net(x, level, condition).detach(), net(x, level).detach()
    hold(torch.pdist(out.flatten(1)).min() > 1e-3, f"for shape {shape} two values of a {kind} give the same output.")
    none = {kind: torch.full_like(condition[kind], torch.nan if condition[kind].is_floating_point() else -1)}
    hold(torch.equal(net(x, level, none), plain), f"for shape {shape} an absent {kind} differs from one left out.")
    near(f"for shape {shape} the output of a row without its {kind}", out[:1], plain[:1], rtol=1e-4, atol=1e-5)
    if kind in ("vector", "picture"):  # one missing number is enough
        half = torch.zeros_like(condition[kind])
        half[..., -1] = torch.nan
        hold(torch.equal(net(x, level, {kind: half}), plain), f"for shape {shape} a {kind} with a NaN is not absent.")


def level_matters(config: NetConfig, shape: tuple[int, ...]) -> None:
    """Different noise levels give different outputs."""
    x, _ = inputs(shape, batch=1)
    out = nudged(config.build(shape))(x.expand(4, *shape), torch.tensor([-12.0, -1.0, 0.0, 12.0]))
    hold(torch.pdist(out.flatten(1)).min() > 1e-3, f"for shape {shape} two noise levels give the same output.")


def weights_come_from_the_seed(config: NetConfig, shape: tuple[int, ...]) -> None:
    """The initial weights depend on the seed alone, and the global random state does not change."""
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
        for kind in ("none", *KINDS, "several"):
            starts_at_zero_and_learns(config, shape, kind)


def treats_samples_apart(config: NetConfig) -> None:
    """A batch is its samples."""
    for shape in _shapes(config):
        batch_is_its_samples(config, shape)


def heeds_its_condition(config: NetConfig) -> None:
    """Every kind of part and the noise level matter, and where a part is absent it is left out."""
    for shape in _shapes(config):
        level_matters(config, shape)
        for kind in KINDS:
            part_matters(config, shape, kind)


def begins_from_its_seed(config: NetConfig) -> None:
    """Weights are a function of the seed."""
    weights_come_from_the_seed(config, _shapes(config)[0])


LAWS: dict[str, Callable[[NetConfig], None]] = {
    law.__name__.replace("_", "-"): law
    for law in (starts_silent, treats_samples_apart, heeds_its_condition, begins_from_its_seed)
}
