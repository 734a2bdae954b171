"""Laws of the networks: what they return, what they depend on, what they refuse, and that they learn."""

import dataclasses
from typing import Any

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ornstein.errors import InputError
from ornstein.laws.nets import LAWS as NET_LAWS
from ornstein.laws.nets import (
    batch_is_its_samples,
    conditions,
    inputs,
    level_matters,
    nudged,
    part_matters,
    starts_at_zero_and_learns,
    weights_come_from_the_seed,
)
from ornstein.nets import (
    MLP,
    NETS,
    UNET_SIZES,
    Label,
    Number,
    Picture,
    Tokens,
    Transformer,
    UNet,
    Vector,
    attend,
    transformer,
)
from ornstein.nets.dropout import dropout
from ornstein.nets.norm import group_norm, groups_of
from ornstein.nets.unet import _into_channels, _out_of_channels

SMALL = UNet(channels=8, multipliers=(1, 2, 3), blocks=1, attention=(4,), heads_width=8, embedding=16)
PATCHED = dataclasses.replace(SMALL, patch=2)
TWO_LEVELS = dataclasses.replace(SMALL, multipliers=(1, 2))
TINY_MLP = MLP(width=32, depth=2, embedding=16)
TINY_TRANSFORMER = Transformer(width=16, depth=2, heads_width=8, embedding=16)
GRIDS = [(1, 1), (3, 7), (2, 16), (1, 8, 8), (3, 1, 1), (1, 7, 5), (5, 9, 2), (2, 1, 6), (1, 4, 4, 4), (2, 3, 1, 5)]
CASES = [(TINY_MLP, (2,)), (TINY_MLP, (3, 2, 5)), (SMALL, (3, 9)), (SMALL, (1, 7, 6)), (SMALL, (2, 3, 4, 5))]
THREE = {"label": Label(3)}
CASES += [(TINY_TRANSFORMER, shape) for shape in [(3,), (3, 9), (2, 3, 4)]]
CASES += [(dataclasses.replace(TINY_TRANSFORMER, patch=2, places=False), (1, 7, 5))]
LINEAR = dataclasses.replace(TINY_MLP, linear=True)
CASES += [(LINEAR, (3, 2, 5))]
CASES += [(PATCHED, shape) for shape in [(3, 9), (1, 7, 6), (1, 5, 3), (2, 3, 4, 5)]]


def labels(*rows: int) -> dict[str, Tensor]:
    return {"label": torch.tensor(rows)}


#: how a condition comes: at once as a picture, which lies over the grid, or as what is added to the level's embedding
ADDED = ["label", "number", "vector", "tokens"]
BEGINNINGS = [
    (config, shape, kind)
    for config, shape in [
        (TINY_MLP, (2,)), (TINY_MLP, (3, 2, 5)), (LINEAR, (2,)), (TINY_TRANSFORMER, (3,)), (TINY_TRANSFORMER, (3, 9)),
        (dataclasses.replace(TINY_TRANSFORMER, patch=2), (2, 3, 5)),
    ]
    for kind in ["none", *ADDED, "picture", "several"]
]  # fmt: skip
# on grids what is added by itself is tried on one of them: it never meets the grid
BEGINNINGS += [(net, s, kind) for net in (SMALL, PATCHED) for s in GRIDS for kind in ("none", "picture", "several")]
BEGINNINGS += [(net, GRIDS[3], kind) for net in (SMALL, PATCHED) for kind in ADDED]


@pytest.mark.parametrize(("config", "shape", "kind"), BEGINNINGS)
def test_starts_at_zero_and_every_parameter_learns(config: Any, shape: Any, kind: Any) -> None:
    starts_at_zero_and_learns(config, shape, kind)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_a_batch_is_its_samples(config: Any, shape: Any) -> None:
    batch_is_its_samples(config, shape)


@pytest.mark.parametrize("kind", ["label", "number", "vector", "tokens", "picture"])
@pytest.mark.parametrize(("config", "shape"), CASES)
def test_a_part_matters_and_where_it_is_absent_it_is_left_out(config: Any, shape: Any, kind: Any) -> None:
    if kind == "picture" and len(shape) == 1:
        pytest.skip("no picture lies over a vector")
    part_matters(config, shape, kind)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_the_level_matters(config: Any, shape: Any) -> None:
    level_matters(config, shape)


def test_the_order_of_tokens_matters_and_what_follows_a_text_does_not() -> None:
    net = nudged(TINY_MLP.build((2,), {"text": Tokens(4, 5)}))
    x, level = inputs((2,), batch=1)

    def answer(*tokens: Any) -> Any:
        return net(x, level, {"text": torch.tensor([tokens])})

    assert (answer(0, 1, 2) - answer(2, 1, 0)).abs().max() > 1e-3
    torch.testing.assert_close(answer(0, 1, 2), answer(0, 1, 2, -1, -1), rtol=1e-5, atol=1e-6)


def test_a_picture_lies_over_x() -> None:
    """What is moved in the picture moves in the answer, and a coarse picture is spread over what it lies on."""
    net = nudged(
        dataclasses.replace(SMALL, multipliers=(1,), attention=()).build((1, 12, 12), {"y": Picture(1, (12, 12))})
    )
    x, level = torch.zeros(1, 1, 12, 12), torch.zeros(1)
    dot = torch.zeros(1, 1, 12, 12)
    dot[..., 5, 5] = 1.0
    at, moved = (net(x, level, {"y": y}) - net(x, level, {"y": 0 * y}) for y in (dot, dot.roll(1, 3)))
    assert at[..., 5, 5].abs().max() > 1e-3
    assert at[..., 5, :].abs().argmax() + 1 == moved[..., 5, :].abs().argmax()
    coarse = torch.zeros(1, 1, 6, 6)
    coarse[..., 3:] = 1.0
    fine = torch.nn.functional.interpolate(coarse, size=(12, 12), mode="bilinear")
    torch.testing.assert_close(net(x, level, {"y": coarse}), net(x, level, {"y": fine}), rtol=0, atol=0)


def test_names_of_parts_are_the_names_of_their_weights() -> None:
    """Also of those that a module has for itself, and the label's are those of the first files."""
    names = ["label", "noise", "type", "a.b", "two words"]
    net = TINY_MLP.build((2,), dict.fromkeys(names, Label(3)))
    held = {key.removesuffix(".weight") for key in net.state_dict()}
    assert {f"embedding.{name}" for name in ("label", "noise", "noise_", "type_", "a_b", "two words")} <= held
    condition = {name: torch.tensor([k % 3]) for k, name in enumerate(names)}
    assert nudged(net)(torch.zeros(1, 2), torch.zeros(1), condition).isfinite().all()
    assert net.state_dict()["embedding.label.weight"].shape == (4, 16)


def test_parts_missing_leave_no_nan_in_the_gradient() -> None:
    net = nudged(TINY_MLP.build((2, 4), {"vector": Vector(2), "number": Number(), "picture": Picture(1, (4,))}))
    x, level = inputs((2, 4))
    vector = torch.tensor([[torch.nan, 1.0], [1.0, 2.0], [torch.nan, torch.nan], [0.0, 0.0]], requires_grad=True)
    number = torch.tensor([torch.nan, 1.0, torch.nan, 0.0], requires_grad=True)
    picture = torch.zeros(4, 1, 4)
    picture[[0, 2], :, 1] = torch.nan
    condition = {"vector": vector, "number": number, "picture": picture.requires_grad_()}
    net(x, level, condition).square().sum().backward()
    for part in condition.values():
        assert part.grad is not None
        assert part.grad.isfinite().all()
        assert not part.grad[[0, 2]].any()
        assert part.grad[[1, 3]].reshape(2, -1).any(dim=1).all()


def test_the_linear_branch_is_affine_in_x_and_moves_with_the_level() -> None:
    """Its length is not lost, as it is in the blocks: what has twice the size comes out at twice the size."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 5, 3, generator=generator)
    bent = nudged(LINEAR.build((3,)))
    straight = nudged(LINEAR.build((3,)))
    with torch.no_grad():
        straight.out.weight.zero_()  # type: ignore[union-attr, operator]

    def apart(net: Any, level: Tensor) -> float:
        """How far the net is from being affine."""
        at = [net(point, level) for point in (2 * x + y, x, y, 0 * x)]
        return float((at[0] - 2 * at[1] - at[2] + 2 * at[3]).abs().max().detach())

    level = torch.zeros(5)
    assert apart(straight, level) < 1e-4 < apart(bent, level)
    grown = [straight(2 * x, at) - straight(x, at) for at in (level, level + 3)]
    assert float((grown[0] - grown[1]).abs().max().detach()) > 1e-2 * float(grown[0].abs().max().detach()) > 0


def test_levels_are_told_apart_over_the_whole_range() -> None:
    """The waves span the Gaussian kernel of the docstring: neighbours differ, and [-12, 12] holds no period."""
    embedding: Any = SMALL.build((1, 4)).embedding
    levels = torch.linspace(-12, 12, 97)
    waves: Tensor = embedding.waves(levels)
    likeness = waves @ waves.T / waves.shape[1]
    kernel = torch.exp(-0.5 * ((levels[:, None] - levels) * 2 * torch.pi / 4) ** 2)
    assert (likeness - kernel).abs().max() < 0.1
    assert likeness.diagonal(1).max() < 0.95


def translated(shape: tuple[int, ...], shift: tuple[int, ...]) -> float:
    """How far the net is from commuting with a translation, at the centre, where the border does not reach."""
    net = nudged(dataclasses.replace(SMALL, multipliers=(1, 2), attention=()).build(shape), size=0.05)
    generator = torch.Generator().manual_seed(4)
    x = torch.zeros(1, *shape)
    middle: tuple[Any, ...] = (0, slice(None), *(slice(s // 2 - 1, s // 2 + 1) for s in shape[1:]))
    x[middle] = torch.randn(shape[0], *[2] * (len(shape) - 1), generator=generator)
    level, dims = torch.zeros(1), tuple(range(2, x.dim()))
    moved = net(x.roll(shift, dims), level).roll([-s for s in shift], dims)
    still = net(x, level)
    centre = (0, slice(None), *(slice(s // 2 - 4, s // 2 + 4) for s in shape[1:]))
    return float(((moved - still)[centre].abs().max() / still[centre].std()).item())


def test_moves_with_its_input_along_each_axis() -> None:
    """A shift by the coarsest cell (two positions) along either axis passes through; one by half a cell cannot."""
    for shape, along in [((1, 64, 96), (1, 0)), ((1, 64, 96), (0, 1)), ((2, 128), (1,))]:
        assert translated(shape, tuple(8 * a for a in along)) < 1e-3
        assert translated(shape, tuple(7 * a for a in along)) > 1e-2


def test_runs_on_sizes_that_it_was_not_built_for() -> None:
    net = nudged(SMALL.build((1, 8, 8)))
    x, level = inputs((1, 11, 5))
    assert net(x, level).shape == x.shape


@pytest.mark.parametrize(
    ("side", "attention", "attending"),
    [
        ((28, 28), (), []),
        ((28, 28), (8,), [2]),
        ((28, 14), (14,), [1, 2]),
        ((5, 64), (16, 8), [2]),
        ((9, 9), (9,), [0, 1, 2]),
    ],
)
def test_attention_sits_where_the_longest_side_is_small(side: Any, attention: Any, attending: Any) -> None:
    net = dataclasses.replace(SMALL, attention=attention).build((1, *side))
    levels = {int(name.split(".")[1]) for name, _ in net.named_parameters() if name.endswith("attention.qkv.weight")}
    assert sorted(levels) == attending


def test_attend_is_softmax_attention_on_either_path() -> None:
    generator = torch.Generator().manual_seed(5)
    for tokens in (1, 5, 300):  # 300 takes the fused path
        q, k, v = (torch.randn(2, 3, tokens, 8, generator=generator) for _ in range(3))
        weights = torch.einsum("bhiw,bhjw->bhij", q, k) / 8**0.5
        exact = torch.einsum("bhij,bhjw->bhiw", weights.exp() / weights.exp().sum(-1, keepdim=True), v)
        torch.testing.assert_close(attend(q, k, v), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 3])
@pytest.mark.parametrize("shape", GRIDS)
def test_patches_go_into_channels_and_come_out_again(shape: Any, patch: Any) -> None:
    x = inputs(shape)[0]
    folded = _into_channels(x, patch)
    assert folded.shape[1:] == (shape[0] * patch ** (len(shape) - 1), *(-(-side // patch) for side in shape[1:]))
    assert folded.abs().sum() == pytest.approx(x.abs().sum())
    assert torch.equal(_out_of_channels(folded, patch, x.shape[2:]), x)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7, 8, 10, 48, 50, 64, 96, 100, 127, 128, 320, 1000])
def test_groups_divide_the_channels(channels: Any) -> None:
    groups = groups_of(channels)
    assert channels % groups == 0
    assert groups <= 32
    assert channels // groups >= min(4, channels)


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("each", ["sample", "channel"])
@pytest.mark.parametrize(
    ("shape", "innermost"), [((6, 3), False), ((8, 2, 2), False), ((8, 2, 2), True), ((5, 2, 1, 3), False)]
)
def test_group_norm_is_its_formula_with_every_derivative(shape: Any, innermost: Any, each: Any, silu: Any) -> None:
    """In either layout of memory: value, gradient, tangent, and the derivatives of those."""
    generator = torch.Generator().manual_seed(6)
    x = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    of = (2, shape[0]) if each == "sample" else (shape[0],)
    scale, shift = (torch.randn(of, generator=generator, dtype=torch.float64) for _ in range(2))
    grouped = x.reshape(2, groups_of(shape[0]), -1)
    normal = (grouped - grouped.mean(-1, keepdim=True)) / (grouped.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    space = (..., *[None] * (len(shape) - 1))
    expected = normal.reshape(x.shape) * scale[space] + shift[space]
    expected = expected * torch.sigmoid(expected) if silu else expected

    def function(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        laid = x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if innermost else x
        return group_norm(laid, scale, shift, silu)

    torch.testing.assert_close(function(x, scale, shift), expected)
    leaves = [tensor.requires_grad_() for tensor in (x, scale, shift)]
    assert torch.autograd.gradcheck(function, leaves, check_forward_ad=True, check_batched_grad=innermost)
    if x.numel() < 400 and each == "sample":
        assert torch.autograd.gradgradcheck(function, leaves, check_fwd_over_rev=innermost)
    tangent = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    of_two = torch.stack([x, 2 * x]).detach()
    mapped = torch.func.vmap(lambda x: torch.func.jvp(lambda x: function(x, scale, shift), (x,), (tangent,))[1])(of_two)
    alone = [torch.autograd.functional.jvp(lambda x: function(x, scale, shift), (x,), (tangent,))[1] for x in of_two]
    torch.testing.assert_close(mapped, torch.stack(alone))


def test_group_norm_is_exact_in_bfloat16_up_to_the_last_rounding() -> None:
    """Far from zero, too, where sums in bfloat16 would be lost."""
    generator = torch.Generator().manual_seed(9)
    x = (torch.randn(2, 32, 8, 8, generator=generator) + 10).bfloat16()
    scale, shift = torch.ones(32), torch.zeros(32)
    exact = group_norm(x.double(), scale.double(), shift.double())
    found = group_norm(x.contiguous(memory_format=torch.channels_last), scale, shift)
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().max() <= 2**-8 * exact.abs().max()


@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_group_norm_writes_over_nothing_that_is_not_its_own(dtype: Any, silu: Any) -> None:
    """The gradient that is written over itself is the one that is not, and what came in is as it was."""
    generator = torch.Generator().manual_seed(10)
    x = torch.randn(3, 32, 6, 5, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    scale, shift = torch.randn(2, 3, 32, generator=generator)
    out = torch.randn(x.shape, generator=generator).to(dtype).to(memory_format=torch.channels_last)
    kept = [tensor.clone() for tensor in (x, scale, shift, out)]
    leaves = [tensor.requires_grad_() for tensor in (x, scale, shift)]
    quick = torch.autograd.grad(group_norm(leaves[0], leaves[1], leaves[2], silu), leaves, out)
    slow = torch.autograd.grad(group_norm(leaves[0], leaves[1], leaves[2], silu), leaves, out, create_graph=True)
    for tensor, before in zip((x, scale, shift, out), kept, strict=True):
        assert torch.equal(tensor, before)
    for one, other in zip(quick, slow, strict=True):
        torch.testing.assert_close(one, other, rtol=2**-7 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def fitted(
    net: nn.Module, shape: tuple[int, ...], steps: int, rate: float, autocast: bool = False
) -> tuple[float, float]:
    """First and last relative squared error, for 16 random targets told apart by input, level and label."""
    generator = torch.Generator().manual_seed(7)
    x, target = torch.randn(2, 16, *shape, generator=generator)
    level, condition = torch.linspace(-3, 3, 16), {"label": torch.arange(16) % 4 - 1}
    optimiser = torch.optim.Adam(net.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = net(x, level, condition)
        loss = (out.float() - target).square().mean() / target.square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


@pytest.mark.parametrize(
    ("config", "shape", "steps", "rate", "autocast"),
    [
        *((MLP(width=64, depth=2), (2,), 150, 3e-3, autocast) for autocast in (False, True)),
        (TWO_LEVELS, (1, 6, 5), 60, 6e-3, True),
        (TWO_LEVELS, (2, 11), 60, 6e-3, False),
    ],
)
def test_learns_random_targets_by_heart(config: Any, shape: Any, steps: Any, rate: Any, autocast: Any) -> None:
    first, last = fitted(config.build(shape, THREE), shape, steps=steps, rate=rate, autocast=autocast)
    assert first == pytest.approx(1.0, abs=1e-6)
    assert last < 0.05


def test_the_label_alone_can_carry_the_answer() -> None:
    """Equal inputs, the target is the label's own: nothing but the condition can explain it."""
    for config, shape in [(TINY_MLP, (2,)), (TWO_LEVELS, (1, 4, 4))]:
        net = config.build(shape, THREE)
        x, level, condition = torch.ones(4, *shape), torch.zeros(4), labels(-1, 0, 1, 2)
        target = torch.randn(4, *shape, generator=torch.Generator().manual_seed(8))
        optimiser = torch.optim.Adam(net.parameters(), lr=5e-3)
        for _ in range(100):
            loss = (net(x, level, condition) - target).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        assert loss < 0.02


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_bfloat16_autocast_agrees_with_float32(config: Any, shape: Any) -> None:
    """Eight bits of mantissa through some twenty layers: 3 % of the output's size in the mean square."""
    net = nudged(config.build(shape, THREE), size=0.05)
    x, level = inputs(shape)
    condition = labels(-1, 0, 1, 2)
    exact = net(x, level, condition)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net(x, level, condition)
    assert rounded.dtype == torch.bfloat16
    assert (rounded.float() - exact).square().mean().sqrt() < 0.03 * exact.square().mean().sqrt()


def test_the_first_layer_sees_what_eight_bits_would_hide() -> None:
    """Noise of 0.002 on a picture of ones is below bfloat16's rounding, and reaches the second layer all the same."""
    net: Any = nudged(SMALL.build((1, 8, 8)), size=0.05)
    seen: list[Tensor] = []
    net.stem.register_forward_hook(lambda module, args, out: seen.append(out))
    noise = 0.002 * torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for x in (torch.ones(4, 1, 8, 8), torch.ones(4, 1, 8, 8) + noise):
        with torch.autocast("cpu", torch.bfloat16):
            assert net(x, torch.full((4,), -6.0)).dtype == torch.bfloat16
    expected = torch.nn.functional.conv2d(noise, net.stem.weight, padding=1)
    assert (seen[1] - seen[0] - expected).abs().max() < 1e-3 * expected.abs().max()


def test_double_precision_follows_the_parameters() -> None:
    net = nudged(SMALL.build((1, 6, 6))).double()
    x, level = inputs((1, 6, 6))
    out = net(x.double(), level.double())
    assert out.dtype == torch.float64
    torch.testing.assert_close(out.float(), nudged(SMALL.build((1, 6, 6)))(x, level), rtol=1e-3, atol=1e-3)


#: as few layers as have one of each kind: what is traced costs by the operation
SHALLOW: dict[type, dict[str, Any]] = {
    MLP: {"depth": 1}, Transformer: {"depth": 1}, UNet: {"multipliers": (1, 2), "attention": (5,)}
}  # fmt: skip


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_no_python_depends_on_the_data(config: Any, shape: Any) -> None:
    """Of tensors without values none can be asked for one: a branch on it would refuse."""
    parts, condition = conditions("several", shape)
    net = nudged(dataclasses.replace(config, **SHALLOW[type(config)]).build(shape, parts))
    x, level = inputs(shape)
    expected = net(x, level, condition)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x, level = mode.from_tensor(x), mode.from_tensor(level)
        out = net(x, level, {name: mode.from_tensor(part) for name, part in condition.items()})
    assert (out.shape, out.dtype, out.device) == (expected.shape, expected.dtype, expected.device)


#: each kind of network once, on the largest grid that it is given above but for volumes; with patches, which are a step
#: before and one after what is done without
EXPORTED = [(TINY_MLP, (3, 2, 5)), (TINY_TRANSFORMER, (2, 3, 4)), (PATCHED, (1, 7, 6))]


@pytest.mark.parametrize(("config", "shape"), EXPORTED)
def test_a_network_is_exported_for_any_batch(config: Any, shape: Any) -> None:
    """What compile and ONNX need: no branch on a tensor's value, nor on how many rows there are."""
    parts, condition = conditions("several", shape)
    net = nudged(dataclasses.replace(config, **SHALLOW[type(config)]).build(shape, parts))
    x, level = inputs(shape)
    batch = torch.export.Dim("batch", min=2, max=64)
    program = torch.export.export(
        net, (x, level, condition), dynamic_shapes=({0: batch}, {0: batch}, {name: {0: batch} for name in condition})
    )
    x, level = inputs(shape, batch=7)
    condition = {name: torch.cat([part, part[:3]]) for name, part in condition.items()}
    torch.testing.assert_close(program.module()(x, level, condition), net(x, level, condition), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_weights_survive_a_file_and_come_from_the_seed_alone(config: Any, shape: Any) -> None:
    x, level = inputs(shape)
    net = nudged(config.build(shape, THREE))
    fresh = config.build(shape, THREE, seed=1)
    fresh.load_state_dict(load(save(net.state_dict())))
    torch.testing.assert_close(fresh.eval()(x, level), net(x, level), rtol=0, atol=0)

    weights_come_from_the_seed(config, shape)


@pytest.mark.parametrize("p", [0.0, 0.003, 0.2, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_units_independently_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    """Shares of units, and of pairs at distances that one random number decides for, within four standard errors."""
    h = torch.ones(501, 401, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    found = dropout(h, p, True)
    assert found.dtype == dtype
    kept = (found != 0).double().flatten()
    assert kept.mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / len(kept)) ** 0.5)
    whole = torch.tensor(1 / (1 - p))
    torch.testing.assert_close(found[found != 0].float(), whole.expand(int(kept.sum())), rtol=5e-3, atol=0)
    assert found.double().mean().item() == pytest.approx(1.0, abs=4 * (p / (1 - p) / len(kept)) ** 0.5 + 3e-3)
    for off in (1, 2, 3, 4, 401):
        both = ((kept[off:] - 1 + p) * (kept[:-off] - 1 + p)).mean().item()
        assert abs(both) <= 4 * p * (1 - p) / len(kept) ** 0.5
    (gradient,) = torch.autograd.grad(found.sum(), h)
    assert torch.equal(gradient, found)
    assert dropout(h, p, False) is h
    assert bool(dropout(h, 1 - 1e-7, True).isfinite().all())


@pytest.mark.parametrize("compiling", [False, True])  # which is also how other devices do it
def test_rows_may_drop_a_share_of_what_others_drop(compiling: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row by row, the share of units and the mean within four standard errors; a share of 1 is dropout as always."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    h, share = torch.ones(4, 3, 100_001), torch.tensor([0.0, 0.25, 0.5, 1.0])
    torch.manual_seed(0)
    found = dropout(h, 0.6, True, share).flatten(1)
    assert torch.equal(found[0], h[0].flatten())
    for row, p in zip(found, (0.6 * share).tolist(), strict=True):
        kept = (row != 0).double()
        assert kept.mean().item() == pytest.approx(1 - p, abs=4 * (p * (1 - p) / len(kept)) ** 0.5 + 1e-5)
        torch.testing.assert_close(row[row != 0], torch.full((int(kept.sum()),), 1 / (1 - p)), rtol=1e-4, atol=0)
    if not compiling:
        torch.manual_seed(1)
        whole = dropout(h, 0.6, True)
        torch.manual_seed(1)
        assert torch.equal(dropout(h, 0.6, True, torch.ones(4)), whole)
    assert dropout(h, 0.6, False, share) is h
    assert bool(dropout(h, 1 - 1e-7, True, share).isfinite().all())


def test_dropout_keeps_the_mean_and_acts_in_training_only() -> None:
    net = nudged(dataclasses.replace(SMALL, dropout=0.5).build((1, 8, 8)))
    x, level = inputs((1, 8, 8))
    assert torch.equal(net(x, level), net(x, level))
    net.train()
    assert not torch.equal(net(x, level), net(x, level))


def test_sizes_are_as_stated() -> None:
    def millions(size: str, shape: tuple[int, ...]) -> float:
        return sum(p.numel() for p in UNET_SIZES[size].build(shape, {"label": Label(10)}).parameters()) / 1e6

    assert millions("tiny", (1, 8, 8)) < 1
    assert 1 < millions("small", (1, 28, 28)) < 2
    assert 5 < millions("base", (3, 32, 32)) < 7


#: those whose small versions are held to each law above: with their defaults, which are large, to the first
SEEN_SMALL = ("mlp", "unet", "transformer")


@pytest.mark.parametrize(
    ("name", "law"),
    [
        pytest.param(name, law, marks=[pytest.mark.slow] if name in SEEN_SMALL and law != next(iter(NET_LAWS)) else [])
        for name in NETS
        for law in NET_LAWS
    ],
)
def test_every_net_of_the_table_keeps_the_laws_with_its_defaults(name: Any, law: Any) -> None:
    NET_LAWS[law](NETS[name]())


def test_every_net_has_a_first_sentence_and_defaults_that_build() -> None:
    for config in NETS.values():
        assert config.__doc__
        assert config.__doc__.splitlines()[0].endswith(".")
        assert dataclasses.is_dataclass(config)
        assert config().build((1, 8, 8)) is not None
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config(), dataclasses.fields(config)[0].name, 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UNet(attention=(0,)), "attention"),
        (lambda: UNet(attention=(7.5,)), "attention"),  # type: ignore[arg-type]
        (lambda: UNet(attention=8), "attention=8"),  # type: ignore[arg-type]
        (lambda: UNet(multipliers=()), "multipliers"),
        (lambda: UNet(multipliers=(1, -2)), "multipliers"),
        (lambda: UNet(dropout=1.0), "dropout=1.0"),
        (lambda: UNet(channels=True), "channels=True"),
        (lambda: UNet(blocks=0), "blocks=0"),
        (lambda: UNet(heads_width=0), "heads_width=0"),
        (lambda: MLP(width=0), "width=0"),
        (lambda: MLP(depth=1.5), "depth=1.5"),  # type: ignore[arg-type]
        (lambda: UNet().build((4,)), "'mlp'"),
        (lambda: UNet().build((1, 2, 3, 4, 5)), "shape"),
        (lambda: MLP().build(()), "shape"),
        (lambda: MLP().build((2, 0)), "shape"),
        (lambda: Label(0), "classes=0"),
        (lambda: Vector(0), "size=0"),
        (lambda: Picture(0, (2,)), "channels=0"),
        (lambda: Picture(1, (2, 0)), "each size in shape=0"),
        (lambda: Tokens(0, 4), "vocabulary=0"),
        (lambda: Tokens(4, 0), "length=0"),
        (lambda: MLP().build((2,), {"kind": 3}), "'kind': 3"),  # type: ignore[dict-item]
        (lambda: MLP().build((2,), {"": Number()}), "conditions has ''"),
        (lambda: MLP().build((2, 4), {"y": Picture(1, (4, 4))}), "the picture 'y' of size"),
        (lambda: MLP().build((2,), out_multiple=0), "out_multiple=0"),
    ],
)
def test_bad_configurations_are_refused(make: Any, words: Any) -> None:
    with pytest.raises(InputError, match=words.replace("(", r"\(")) as refusal:
        make()
    assert str(refusal.value).count("\n") == 0


@pytest.mark.parametrize(("config", "shape"), CASES)
def test_bad_calls_are_refused(config: Any, shape: Any) -> None:
    kinds = ("label", "vector", "number", "tokens", "none")
    labelled, featured, numbered, texts, plain = (config.build(shape, conditions(kind, shape)[0]) for kind in kinds)
    x, level = inputs(shape)
    with pytest.raises(InputError, match="built for"):
        plain(x[0], level)
    with pytest.raises(InputError, match="built for"):
        plain(torch.cat([x, x], dim=1), level)
    with pytest.raises(InputError, match="noise_level"):
        plain(x, level[:1], None)
    with pytest.raises(InputError, match="noise_level"):
        plain(x, level.view(4, 1), None)
    with pytest.raises(InputError, match="'label' but this network was built for no condition"):
        plain(x, level, labels(0, 0, 0, 0))
    with pytest.raises(InputError, match="'kind' but this network was built for label"):
        labelled(x, level, {"kind": torch.zeros(4, dtype=torch.int64)})
    whole = torch.zeros(4, dtype=torch.int64)
    for net, name, wrong, words in [
        (labelled, "label", (torch.zeros(4), whole[:1], torch.zeros(4, 3)), "labels"),
        (featured, "vector", (torch.zeros(4, 2, dtype=torch.int64), torch.zeros(4, 3), torch.zeros(4)), "floats"),
        (numbered, "number", (whole, torch.zeros(4, 1), torch.zeros(1)), "floats"),
        (texts, "tokens", (whole, torch.zeros(4, 3), whole[:, None].expand(4, 6)), "tokens"),
    ]:
        for part in wrong:
            with pytest.raises(InputError, match=words):
                net(x, level, {name: part})
    for label in (-2, 3):
        with pytest.raises(IndexError):
            labelled(x, level, labels(0, 1, 2, label))
    if len(shape) > 1:
        parts, condition = conditions("picture", shape)
        with pytest.raises(InputError, match="'picture'"):
            config.build(shape, parts)(x, level, {"picture": condition["picture"][:, :1]})


def test_a_transformer_without_places_sees_differences_of_positions_alone() -> None:
    """What is moved along moves in the answer; with places it need not, and other lengths are refused."""
    free = dataclasses.replace(TINY_TRANSFORMER, places=False)
    net, level = nudged(free.build((2, 8))), torch.zeros(1)
    x = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(7))
    longer = torch.cat([x, x], 2)
    assert net(longer, level).shape == longer.shape  # of a length that it was not built for
    turns = transformer.turns_of((12,), 8)
    query, key = (torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))

    def product(i: int, j: int) -> float:
        q, k = (transformer._turned(part, turns[:, at : at + 1]) for part, at in ((query, i), (key, j)))
        return float((q * k).sum())

    assert product(3, 1) == pytest.approx(product(11, 9), abs=1e-5)
    assert product(3, 1) != pytest.approx(product(3, 2), abs=1e-3)
    same = torch.ones(1, 2, 8)
    assert net(same, level).std(-1).max() < 1e-5
    placed = nudged(TINY_TRANSFORMER.build((2, 8)))
    assert placed(same, level).std(-1).max() > 1e-2
    with pytest.raises(InputError, match="was built for"):
        placed(longer, level)
    with pytest.raises(InputError, match="heads_width"):
        Transformer(width=16, heads_width=5)


def test_a_transformers_attention_is_of_four_dimensions(monkeypatch: Any) -> None:
    """As exporters want it: (batch, heads, tokens, width), for sequences and grids alike."""
    seen: list[Any] = []

    def watched(*parts: Any) -> Tensor:
        seen.extend(part.shape for part in parts if part is not None)
        return attend(*parts)

    monkeypatch.setattr(transformer, "attend", watched)
    for shape, tokens in (((2, 8), 8), ((2, 3, 4), 12)):
        seen.clear()
        TINY_TRANSFORMER.build(shape)(torch.zeros(5, *shape), torch.zeros(5))
        assert set(seen) == {(5, 2, tokens, 8)}
