"""Transforms, batches, splits and the toys: exact round trips, closed forms and the laws of the endless list."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ornstein.data import (
    DATA,
    TRANSFORMS,
    Affine,
    Chain,
    Dataset,
    Digits,
    Table,
    Transform,
    WholeNumbers,
    labelled,
    open_data,
    split,
)
from ornstein.data.statistics import moments, standardise
from ornstein.data.toys import Checkerboard, EightGaussians, Moons, Pinwheel, Spirals, SwissRoll, Toy
from ornstein.errors import InputError
from ornstein.laws.others import DATA_LAWS

TOYS = [name for name, kind in DATA.items() if issubclass(kind, Toy)]

EXAMPLES: list[tuple[Transform, tuple[int, ...]]] = [
    (Affine(3.0, -2.5), (3,)),
    (Affine((1.0, -2.0, 0.5), (0.1, 7.0, 2.0)), (3,)),
    (Affine((1.0, -2.0), (0.1, 7.0)), (2, 3, 2)),
    (Affine(0.5, (0.1, 7.0)), (2, 4)),
    (WholeNumbers(256), (1, 2, 3)),
    (WholeNumbers(17), (4,)),
    (WholeNumbers(65_536, -32_768), (2, 3)),
    (Chain(()), (3,)),
    (Chain((WholeNumbers(256), Affine(0.25, (0.5, 2.0)))), (2, 2, 2)),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- transforms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("transform", "shape"), EXAMPLES, ids=str)
def test_log_det_is_that_of_the_jacobian(transform: Transform, shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, generator=generator(), dtype=torch.float64)
    for row, claimed in zip(x, transform.log_abs_det(x), strict=True):
        jacobian = torch.autograd.functional.jacobian(lambda v: transform.forward(v[None])[0], row)
        measured = torch.linalg.slogdet(jacobian.reshape(row.numel(), row.numel())).logabsdet
        torch.testing.assert_close(claimed, measured, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize(("transform", "shape"), EXAMPLES, ids=str)
def test_inverse_undoes_forward_and_keeps_the_float_type(transform: Transform, shape: tuple[int, ...]) -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        x = 20 * torch.rand(5, *shape, generator=generator(), dtype=dtype)
        back = transform.inverse(transform.forward(x))
        scale = max(1.0, 65_536.0 * (transform.levels is not None and transform.levels.count > 256))
        torch.testing.assert_close(back, x, rtol=0, atol=20 * scale * tolerance)
        assert transform.log_abs_det(x).shape == (5,)
        assert transform.log_abs_det(x).dtype == dtype


@pytest.mark.parametrize(("transform", "shape"), EXAMPLES, ids=str)
def test_a_transform_survives_yaml(transform: Transform, shape: tuple[int, ...]) -> None:
    assert Transform.from_dict(yaml.safe_load(yaml.safe_dump(transform.to_dict()))) == transform


def test_every_kind_of_transform_has_an_example() -> None:
    # of cells, classes, both, and latents: tests/test_tokens.py, test_tokens_runs.py, test_mixed.py, test_latents.py
    elsewhere = {"tokens", "classes", "with-class", "coded"}
    assert {transform.to_dict()["kind"] for transform, _ in EXAMPLES} | elsewhere == set(TRANSFORMS)


@pytest.mark.parametrize(("count", "low"), [(2, 0), (17, 0), (256, 0), (4096, 0), (65_536, 0), (65_536, -32_768)])
def test_levels_are_exact(count: int, low: int) -> None:
    levels = WholeNumbers(count, low)
    x = torch.arange(low, low + count).to(levels.dtype)[:, None]
    z = levels.forward(x)
    assert z.dtype == torch.float32
    assert z[0].item() == -1
    assert z[-1].item() == 1
    back = levels.inverse(z, quantise=True)
    assert back.dtype == (torch.uint8 if count <= 256 else torch.int32)
    assert torch.equal(back, x)
    # what lies within a bin belongs to its level; what lies past it, to the next; past the ends, to the ends
    inner = x[1:-1]
    assert torch.equal(levels.inverse(z[1:-1].double() + 0.49 * levels.bin_width, quantise=True), inner)
    assert torch.equal(levels.inverse(z[1:-1].double() + 0.51 * levels.bin_width, quantise=True), inner + 1)
    assert levels.inverse(torch.tensor([[-9.0], [9.0]]), quantise=True).flatten().tolist() == [low, low + count - 1]


def test_a_chain_quantises_on_the_data_side() -> None:
    chain = Chain((WholeNumbers(17), Affine(0.3, 0.7)))
    x = torch.arange(17, dtype=torch.uint8)[:, None]
    assert chain.levels == WholeNumbers(17)
    assert torch.equal(chain.inverse(chain.forward(x), quantise=True), x)
    later = Chain((Affine(0.3, 0.7), WholeNumbers(17)))  # levels that are not the data's own round nothing
    assert later.levels is None
    z = torch.rand(9, 1, generator=generator())
    assert torch.equal(later.inverse(z, quantise=True), later.inverse(z))


def test_a_density_in_data_units_is_the_closed_form() -> None:
    """x ~ N(mean, std^2) standardised is N(0, 1), whose log-density plus the log-determinant must be that of x."""
    mean, std = torch.tensor([5.0, -300.0, 0.01]), torch.tensor([2.0, 90.0, 1e-3])
    x = mean + std * torch.randn(100, 3, generator=generator())
    transform = Affine(tuple(mean.tolist()), tuple(std.tolist()))
    standard = torch.distributions.Normal(0.0, 1.0)
    measured = standard.log_prob(transform.forward(x)).sum(1) + transform.log_abs_det(x)
    torch.testing.assert_close(measured, torch.distributions.Normal(mean, std).log_prob(x).sum(1), rtol=1e-5, atol=1e-4)


def test_data_far_from_zero_keep_their_digits() -> None:
    x = (1e6 + torch.randn(10_000, 1, generator=generator())).float()  # float32 resolves 1/16 here
    transform, _ = standardise(x)
    z = transform.forward(x)
    exact = (x.double() - x.double().mean()) / x.double().std(correction=0)
    # the one error left is that of the mean, rounded to float32; scale * x + shift would err by 0.06
    assert (z - exact).abs().max() < 0.04
    assert (z - exact).std() < 1e-6


def test_standardise_gives_mean_zero_and_unit_variance_per_channel() -> None:
    x = torch.randn(3000, 3, 5, generator=generator()) * torch.tensor([1.0, 50.0, 1e-3])[:, None] + 7
    transform, remark = standardise(x)
    mean, sigma = moments(x, transform)
    torch.testing.assert_close(mean, torch.zeros(3, dtype=torch.float64), atol=2e-3, rtol=0)
    torch.testing.assert_close(sigma, torch.ones(3, dtype=torch.float64), atol=1e-4, rtol=0)
    assert remark == ""


def test_constant_features_keep_scale_one_and_are_said() -> None:
    x = torch.randn(100, 3, generator=generator())
    x[:, 1] = 0.1
    transform, remark = standardise(x)
    assert isinstance(transform, Affine)
    assert isinstance(transform.scale, tuple)
    assert transform.scale[1] == 1.0
    assert remark == "1 constant feature kept at scale 1 (1)"
    with pytest.raises(InputError, match="nothing to learn"):
        standardise(torch.ones(5, 2))


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"kind": "affin"},
        {"kind": "affine", "shift": 0.0, "scale": 0.0},
        {"kind": "affine", "shift": "a", "scale": 1.0},
        {"kind": "affine", "shift": [0.0, 1.0], "scale": [1.0, 1.0, 1.0]},
        {"kind": "affine", "shift": math.nan, "scale": 1.0},
        {"kind": "affine", "stretch": 1.0},
        {"kind": "levels", "count": 1},
        {"kind": "levels", "count": "256"},
        {"kind": "chain"},
        {"kind": "chain", "parts": ["levels"]},
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(damaged: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Transform.from_dict(damaged)


def test_a_batch_with_other_features_is_refused() -> None:
    with pytest.raises(InputError, match="3 features"):
        Affine((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)).forward(torch.zeros(4, 2))


# --- batches ---------------------------------------------------------------------------------------------------


def counting(count: int = 10, **changes: Any) -> Dataset:
    """Vectors (i,) for i < count, in their own units: a batch shows which examples it drew."""
    values = torch.arange(count, dtype=torch.float32)[:, None]
    data = Dataset(
        "counting",
        values,
        -values[:1],
        labelled(torch.arange(count), torch.zeros(1).long(), ("a",)),
        "vector",
        Affine(),
    )
    return dataclasses.replace(data, **changes)


def drawn(data: Dataset, step: int, size: int, seed: int = 0, rank: int = 0, world: int = 1) -> list[int]:
    x, condition = data.batch(step, size, seed, rank, world)
    labels = condition.parts["label"]
    assert x.dtype == torch.float32
    assert torch.equal(x.flatten().long(), labels)  # labels go with their examples
    return labels.tolist()


@pytest.mark.parametrize("size", [1, 3, 4, 10, 23])
def test_every_epoch_shows_each_example_once_across_batch_borders(size: int) -> None:
    data = counting()
    steps = math.ceil(50 / size)
    endless = [i for step in range(steps) for i in drawn(data, step, size)]
    epochs = [endless[k : k + 10] for k in range(0, 50, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 5  # and in a new order each time


@pytest.mark.parametrize("world", [2, 3])
def test_processes_side_by_side_draw_the_batch_of_one(world: int) -> None:
    data = counting(11)
    for step in range(12):
        together = [i for rank in range(world) for i in drawn(data, step, 4, 5, rank, world)]
        assert together == drawn(data, step, 4 * world, 5)


def test_a_batch_is_a_function_of_seed_and_step_alone() -> None:
    data = counting(1000)
    forwards = [drawn(data, step, 64, seed=3) for step in range(40)]
    for step in (39, 0, 17, 31):
        drawn(data, step + 1, 7, seed=8)  # other calls in between, which fill the cache with other permutations
        assert drawn(counting(1000), step, 64, seed=3) == forwards[step]
    assert drawn(data, 0, 64, seed=4) != forwards[0]


def test_neighbouring_seeds_and_epochs_are_not_each_other() -> None:
    data = counting(100)
    orders = {(seed, epoch): tuple(drawn(data, epoch, 100, seed)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25


def test_a_batch_does_not_touch_the_global_random_state() -> None:
    before = torch.get_rng_state()
    Digits().load().batch(3, 8, 0)
    Moons(count=50).load()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("step", "size", "rank", "world"), [(-1, 4, 0, 1), (0, 0, 0, 1), (0, 4, 2, 2), (0, 4, -1, 2)])
def test_a_batch_out_of_range_is_refused(step: int, size: int, rank: int, world: int) -> None:
    with pytest.raises(InputError, match="out of range"):
        counting().batch(step, size, 0, rank, world)


def test_mirroring_is_fair_and_depends_on_seed_and_step_alone() -> None:
    images = torch.arange(400 * 6, dtype=torch.float32).reshape(400, 1, 2, 3)
    plain = Dataset("ramps", images, images[:1], {}, "image", Affine())
    flipped = dataclasses.replace(plain, flip=True)
    mirrored = []
    for step in range(20):
        x, y = plain.batch(step, 32, seed=1)[0], flipped.batch(step, 32, seed=1)[0]
        is_mirror = (y == x.flip(-1)).all(dim=(1, 2, 3))
        assert (is_mirror | (y == x).all(dim=(1, 2, 3))).all()
        mirrored += is_mirror.tolist()
        halves = torch.cat([flipped.batch(step, 16, 1, rank, 2)[0] for rank in (0, 1)])
        assert torch.equal(halves, y)
    assert abs(sum(mirrored) - 320) < 5 * math.sqrt(640) / 2
    assert mirrored[:32] != mirrored[32:64]
    assert torch.equal(flipped.test, plain.test)


# --- data sets -------------------------------------------------------------------------------------------------


def test_digits_are_split_in_proportion_and_completely() -> None:
    from sklearn.datasets import load_digits

    data = Digits().load()
    assert data.describe() == (
        "1,437 images 1x8x8, values 0..16 (uint8) -> [-1, 1], sigma_data 0.75, 360 held out, 10 classes"
    )
    assert data.train_labels is not None
    assert data.test_labels is not None
    whole = torch.bincount(torch.from_numpy(load_digits().target)).double()
    held_out = torch.bincount(data.test_labels).double()
    assert (held_out - whole * 360 / 1797).abs().max() <= 1
    both = torch.cat([data.train, data.test]).flatten(1).long()
    original = torch.from_numpy(load_digits().data).long()
    assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, original.tolist()))
    x, condition = data.batch(0, 1437, seed=0)
    labels = condition.parts["label"]
    assert x.min() == -1
    assert x.max() == 1
    back = data.transform.inverse(x, quantise=True)
    assert back.dtype == torch.uint8
    order = {tuple(image.flatten().tolist()): label for image, label in zip(data.train, data.train_labels, strict=True)}
    assert all(order[tuple(image.flatten().tolist())] == label for image, label in zip(back, labels, strict=True))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 1 / 3, 0.999])
@pytest.mark.parametrize("count", [3, 10, 101])
def test_a_split_is_a_partition(count: int, fraction: float) -> None:
    labels = torch.arange(count) % 3
    for given in (None, labels):
        train, test = split(count, fraction, seed=0, labels=given)
        assert sorted(train.tolist() + test.tolist()) == list(range(count))
        assert len(train) >= 2
        assert len(test) == min(max(math.ceil(count * fraction - 1e-9), 1), count - 2)
        assert torch.equal(split(count, fraction, seed=0, labels=given)[1], test)
    if count == 101 and 0.1 < fraction < 0.9:
        assert not torch.equal(split(count, fraction, seed=1)[1], split(count, fraction, seed=0)[1])
        per_class = torch.bincount(labels[test], minlength=3)
        assert per_class.max() - per_class.min() <= 1


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_a_fraction_that_is_none_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="test_fraction"):
        split(10, fraction, seed=0)


def test_sigma_data_and_mean_are_those_of_all_values_in_model_space() -> None:
    values = torch.randn(3000, 3, 4, generator=generator()) * torch.tensor([1.0, 2.0, 5.0])[:, None]
    values += torch.tensor([0.0, 3.0, -1.0])[:, None]
    transform = Affine((0.5, 0.0, 0.0), (2.0, 2.0, 3.0))
    data = Dataset("d", values, values[:9], {}, "array", transform)
    z = transform.forward(values.double())
    assert data.sigma_data == pytest.approx(z.std(correction=0).item(), rel=1e-6)
    assert data.fingerprint()["mean"] == pytest.approx(z.mean().item(), rel=1e-5)


def test_the_fingerprint_is_plain_stable_and_notices_one_changed_value() -> None:
    data = Digits().load()
    facts = data.fingerprint()
    assert json.loads(json.dumps(facts)) == facts == Digits().load().fingerprint()
    assert facts["range"] == [0, 16]
    assert facts["shape"] == [1, 8, 8]
    assert (facts["count"], facts["held_out"], facts["dtype"]) == (1437, 360, "uint8")
    changed = []
    for part in ("train", "test"):
        values = getattr(data, part).clone()
        values.view(-1)[77] ^= 1
        changed.append(dataclasses.replace(data, **{part: values}).fingerprint()["sha256"])
        column = data.conditions["label"]
        labels = getattr(column, part).clone()
        labels[77] ^= 1
        other = {"label": dataclasses.replace(column, **{part: labels})}
        changed.append(dataclasses.replace(data, conditions=other).fingerprint()["sha256"])
    assert len({facts["sha256"], *changed}) == 5


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"train": torch.zeros(1, 1), "conditions": {}}, "at least 2"),
        ({"test": torch.zeros(0, 1), "conditions": {}}, "held-out"),
        ({"conditions": labelled(torch.zeros(3).long(), torch.zeros(1).long(), ("a",))}, "label"),
        ({"conditions": labelled(torch.zeros(10).long(), torch.zeros(2).long(), ("a",))}, "label"),
        ({"flip": True}, "flip"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        counting(**changes)


# --- toys ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TOYS)
def test_a_toy_is_a_function_of_its_seed_and_standardised(name: str) -> None:
    data, again, other = (open_data(name, count=2000, seed=seed).load() for seed in (0, 0, 1))
    assert data.fingerprint() == again.fingerprint()
    assert data.fingerprint()["sha256"] != other.fingerprint()["sha256"]
    assert (len(data.train), len(data.test)) == (1800, 200)
    mean, sigma = moments(data.train, data.transform)
    assert mean.abs().max() < 1e-6
    assert (sigma - 1).abs().max() < 1e-6
    if data.classes:
        assert data.train_labels is not None
        share = torch.bincount(data.train_labels, minlength=len(data.classes)) / 1800
        expected = 1 / len(data.classes)
        assert (share - expected).abs().max() < 5 * math.sqrt(expected * (1 - expected) / 1800)


def points(toy: Toy) -> tuple[torch.Tensor, torch.Tensor]:
    data = toy.load()
    labels = data.train_labels if data.train_labels is not None else torch.zeros(len(data.train)).long()
    return data.train.double(), labels


def test_eight_gaussians_are_eight_gaussians() -> None:
    x, label = points(EightGaussians())
    for k in range(8):
        mine = x[label == k]
        centre = 2 * torch.tensor([math.cos(k * math.pi / 4), math.sin(k * math.pi / 4)])
        standard_error = 0.2 / math.sqrt(len(mine))
        assert (mine.mean(0) - centre).abs().max() < 5 * standard_error
        assert (mine.std(0) - 0.2).abs().max() < 5 * standard_error / math.sqrt(2)


def test_moons_lie_at_their_noise_from_two_half_circles() -> None:
    x, label = points(Moons(noise=0.05))
    centre = torch.tensor([[0.0, 0.0], [1.0, 0.5]], dtype=torch.float64)[label]
    radius = (x - centre).norm(dim=1)
    assert abs(radius.mean().item() - 1) < 3e-3
    assert radius.std().item() == pytest.approx(0.05, rel=0.05)
    side = torch.where(label == 0, x[:, 1], 0.5 - x[:, 1])  # upper half above its centre, lower half below
    assert (side > -0.3).all()


def test_checkerboard_fills_the_black_squares_evenly_and_no_other() -> None:
    x, _ = points(Checkerboard())
    assert x.abs().max() <= 2
    column, row = (x + 2).floor().clamp(0, 3).long().unbind(1)
    assert ((column + row) % 2 == 0).all()
    share = torch.bincount(4 * column + row, minlength=16).double() / len(x)
    assert (share > 0).sum() == 8
    assert (share[share > 0] - 1 / 8).abs().max() < 5 * math.sqrt(7 / 64 / len(x))
    within = (x + 2) % 1
    assert (within.mean(0) - 0.5).abs().max() < 5 * math.sqrt(1 / 12 / len(x))


def test_spirals_and_swiss_roll_lie_on_their_curves() -> None:
    for toy, pace in ((Spirals(noise=0.0), 1.5 * math.pi), (SwissRoll(noise=0.0), 7.0)):
        x, label = points(toy)
        angle = x.norm(dim=1) * pace
        if isinstance(toy, Spirals):
            sign = 1 - 2 * label.double()
            curve = torch.stack([-sign * angle * angle.cos(), sign * angle * angle.sin()], 1) / pace
            assert (angle.square() / (3 * math.pi) ** 2).mean().item() == pytest.approx(0.5, abs=0.02)
        else:
            curve = torch.stack([angle * angle.cos(), angle * angle.sin()], 1) / pace
            assert angle.min() >= 1.5 * math.pi - 1e-3
            assert angle.max() <= 4.5 * math.pi + 1e-3
        assert (x - curve).norm(dim=1).max() < 1e-4


def test_pinwheel_has_five_arms_that_are_turned_copies() -> None:
    x, label = points(Pinwheel())
    turned = []
    for k in range(5):
        a = -2 * math.pi * k / 5
        back = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]], dtype=torch.float64)
        turned.append(x[label == k] @ back.T)
    for arm in turned[1:]:
        standard_error = (turned[0].var(0) / len(turned[0]) + arm.var(0) / len(arm)).sqrt()
        assert ((arm.mean(0) - turned[0].mean(0)).abs() < 5 * standard_error).all()
    assert x.norm(dim=1).mean().item() == pytest.approx(2.0, rel=0.03)


@pytest.mark.parametrize("arguments", [{"count": 2}, {"noise": -0.1}, {"noise": math.nan}, {"test_fraction": 2.0}])
def test_a_toy_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(arguments))):
        Moons(**arguments).load()


# --- the table -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATA)
def test_every_entry_is_a_frozen_dataclass_with_a_first_sentence(name: str) -> None:
    kind = DATA[name]
    assert dataclasses.is_dataclass(kind)
    assert getattr(kind, "__dataclass_params__").frozen  # noqa: B009  mypy knows no such attribute
    assert getattr(kind, "__final__", False)
    first = (kind.__doc__ or "").splitlines()[0]
    assert first.endswith(".")
    assert 20 < len(first) <= 120
    assert getattr(kind, "name", name) == name


@pytest.mark.parametrize("law", DATA_LAWS)
@pytest.mark.parametrize("name", [*TOYS, "digits"])
def test_every_data_set_that_comes_along_keeps_the_laws(name: str, law: str) -> None:
    DATA_LAWS[law](DATA[name]())


def test_open_data_passes_arguments_and_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    assert open_data("moons", count=500, noise=0.1) == Moons(count=500, noise=0.1)
    assert open_data(str(tmp_path)) == DATA["images"](path=str(tmp_path))  # type: ignore[call-arg]
    for name, match in (
        ("moon", "did you mean 'moons'"),
        ("zzz", "Known: digits"),
        ("./digitz", "does not exist"),
        ("faces.npz", "does not exist"),
        ("images", "needs the argument 'path'"),
    ):
        with pytest.raises(InputError, match=match):
            open_data(name)
    for name in ("table.csv", "table.xlsx"):
        (tmp_path / name).write_text("1,2\n")
    assert open_data(tmp_path / "table.csv") == Table(str(tmp_path / "table.csv"))
    with pytest.raises(InputError, match=r"\.xlsx file; expected"):
        open_data(tmp_path / "table.xlsx")
    with pytest.raises(InputError, match="did you mean 'count'"):
        open_data("moons", counts=5)
