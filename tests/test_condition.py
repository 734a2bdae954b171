"""Laws of conditions: named parts, each absent row by row, from a file or a program into every denoiser."""

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from laws import refused
from sure import Cli, there
from torch import Tensor

import ornstein
from ornstein import VP, Condition, FunctionDenoiser, NetDenoiser
from ornstein.core.condition import absent
from ornstein.data import Column, Digits, Known, open_data
from ornstein.data.array import Array
from ornstein.data.columns import read_columns
from ornstein.energies import EnergyDenoiser
from ornstein.experiment.tune import tune
from ornstein.guidance import ClassifierFree
from ornstein.likelihood import flow
from ornstein.nets import MLP, NETS, Label, Number, Picture, Tokens, UNet, Vector
from ornstein.objectives import OBJECTIVES

B = 6
PARTS = {
    "label": torch.arange(B) % 3,
    "price": torch.linspace(-1, 1, B),
    "size": torch.randn(B, 2, generator=torch.Generator().manual_seed(0)),
    "sketch": torch.randn(B, 1, 2, 2, generator=torch.Generator().manual_seed(1)),
    "text": torch.tensor([[0, 1, -1], [2, -1, -1], [1, 1, 1], [0, 0, -1], [2, 2, 0], [1, -1, -1]]),
}
SPECS: dict[str, Any] = {
    "label": Label(3),
    "price": Number(),
    "size": Vector(2),
    "sketch": Picture(1, (2, 2)),
    "text": Tokens(3, 3),
}


def equal(a: Condition, b: Condition) -> bool:
    return list(a.parts) == list(b.parts) and all(
        torch.equal(a.parts[name].nan_to_num(9.5), b.parts[name].nan_to_num(9.5)) for name in a.parts
    )


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- the noun ------------------------------------------------------------------------------------------------------


def test_rows_are_chosen_laid_together_and_repeated_together() -> None:
    condition = Condition(PARTS)
    assert condition.rows == B
    assert condition
    assert equal(Condition.cat([condition[:2], condition[2:]]), condition)
    assert equal(condition[torch.tensor([0, 1])], condition[:2])
    assert equal(condition[torch.arange(B) < 2], condition[:2])
    assert equal(condition.repeat(2), Condition.cat([condition, condition]))
    assert equal(condition.to("cpu"), condition)
    assert equal(condition.without("price"), Condition({k: v for k, v in PARTS.items() if k != "price"}))
    empty = Condition()
    assert not empty
    assert empty.rows is None
    for same in (empty[:2], empty.repeat(3), empty.none(), empty.to("cpu"), Condition.cat([empty, empty])):
        assert same.parts == {}


def test_a_part_that_one_of_two_has_is_absent_in_the_rows_of_the_other() -> None:
    both = Condition.cat([Condition(PARTS), Condition({"label": PARTS["label"]})])
    assert both.rows == 2 * B
    assert not both.absent("label").any()
    for name in PARTS:
        if name != "label":
            assert both.absent(name).tolist() == [False] * B + [True] * B
    refused(lambda: Condition.cat([Condition(PARTS), Condition()]), "number of rows")


def test_absence_is_a_value() -> None:
    condition = Condition(PARTS)
    none = condition.none()
    for name, part in PARTS.items():
        assert none.parts[name].dtype == part.dtype
        assert none.parts[name].shape == part.shape
        assert none.absent(name).all()
        assert not condition.absent(name).any()
    assert absent(torch.tensor([[1.0, math.nan], [1.0, 2.0]])).tolist() == [True, False]  # one number is enough
    assert absent(torch.tensor([[1, -1], [-1, -1]])).tolist() == [False, True]  # of tokens all


def test_the_one_door_names_a_bare_tensor_by_its_kind() -> None:
    for given, name in (
        (torch.zeros(3, dtype=torch.int32), "label"),
        (torch.zeros(3), "number"),
        (torch.zeros(3, 2), "vector"),
        (torch.zeros(3, 1, 4), "picture"),
        (torch.zeros(3, 1, 4, 4), "picture"),
        (torch.zeros(3, 5, dtype=torch.uint8), "tokens"),
    ):
        assert list(Condition.of(given).parts) == [name]
        assert given.is_floating_point() or Condition.of(given).parts[name].dtype == torch.int64
    whole = Condition(PARTS)
    assert Condition.of(whole) is whole
    assert equal(Condition.of(PARTS), whole)
    assert not Condition.of(None)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Condition.of("three"), ["condition", "'three'", "tensor"]),  # type: ignore[arg-type]
        (lambda: Condition.of({"price": [1.0]}), ["'price'", "list", "tensor"]),  # type: ignore[dict-item]
        (lambda: Condition.of(torch.tensor(3)), ["condition", "()", "labels"]),
        (lambda: Condition.of(torch.zeros(3, 2, 2, dtype=torch.int64)), ["(3, 2, 2)", "pictures"]),
        (lambda: Condition.of(torch.zeros(3, dtype=torch.complex64)), ["complex64"]),
        (lambda: Condition({"a": torch.zeros(3), "b": torch.zeros(4)}), ["a 3", "b 4"]),
        (lambda: Condition(PARTS).matches(3, "x"), ["'label'", "6", "x", "3"]),
        (lambda: Condition(PARTS).only("label", "a mixture"), ["'price'", "a mixture", "'label'"]),
    ],
)
def test_what_is_no_condition_is_refused(make: Any, words: Any) -> None:
    refused(make, *words)


def test_each_part_is_dropped_at_the_share_by_throws_of_its_own() -> None:
    n, share = 20_000, 0.3
    parts = {"label": torch.zeros(n, dtype=torch.int64), "price": torch.zeros(n), "size": torch.zeros(n, 3)}
    seen = Condition(parts).dropped(share, generator())
    gone = torch.stack([seen.absent(name) for name in parts]).double()
    deviation = math.sqrt(share * (1 - share) / n)
    assert (gone.mean(1) - share).abs().max() < 4 * deviation
    for i in range(8):  # all subsets, each as often as independent throws have it
        kept = torch.tensor([bool(i & 1), bool(i & 2), bool(i & 4)])
        expected = math.prod(1 - share if k else share for k in kept)
        met = ((gone == 0) == kept[:, None]).all(0).double().mean()
        assert abs(met - expected) < 4 * math.sqrt(expected * (1 - expected) / n), kept
    assert Condition(parts).dropped(0.0, generator()).parts is parts
    assert all(Condition(parts).dropped(1.0, generator()).absent(name).all() for name in parts)


def test_one_label_draws_the_numbers_that_it_always_drew() -> None:
    """Runs of old are resumed bit for bit: one row of uniform numbers, from the loss's own generator."""
    labels, g = torch.arange(1000) % 10, generator(3)
    expected = torch.where(torch.rand(1000, generator=g) < 0.1, -1, labels)
    after = torch.rand(1, generator=g)
    g = generator(3)
    assert torch.equal(Condition.of(labels).dropped(0.1, g).parts["label"], expected)
    assert torch.equal(torch.rand(1, generator=g), after)
    g, untouched = generator(3), generator(3)
    Condition().dropped(0.1, g)
    Condition.of(labels).dropped(0.0, g)
    assert torch.equal(torch.rand(1, generator=g), torch.rand(1, generator=untouched))


# --- denoisers -----------------------------------------------------------------------------------------------------


def made(name: str = "mlp", shape: tuple[int, ...] = (2, 4, 4)) -> NetDenoiser:
    config = MLP(width=16, depth=1, embedding=8) if name == "mlp" else UNet(8, (1, 2), 1, (), embedding=8)
    net = config.build(shape, SPECS)
    g = generator(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=g))
    return NetDenoiser(net.eval().requires_grad_(False), VP())


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("energy", [False, True])
def test_absent_rows_have_the_unconditional_answer_and_parts_left_out_are_absent(name: Any, energy: Any) -> None:
    denoiser: Any = made(name)
    if energy:
        denoiser = EnergyDenoiser(denoiser.net, VP())
    x = torch.randn(B, 2, 4, 4, generator=generator())
    condition = Condition(PARTS)
    free = denoiser(x, 0.4).x0
    torch.testing.assert_close(denoiser(x, 0.4, condition.none()).x0, free, rtol=1e-5, atol=1e-5)
    told = denoiser(x, 0.4, condition).x0
    assert ((told - free).flatten(1).abs().amax(1) > 1e-3).all()
    half = torch.arange(B) < 3
    mixed = Condition(
        {k: torch.where(half.reshape(-1, *[1] * (v.ndim - 1)), v, condition.none().parts[k]) for k, v in PARTS.items()}
    )
    torch.testing.assert_close(denoiser(x, 0.4, mixed).x0[:3], told[:3], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denoiser(x, 0.4, mixed).x0[3:], free[3:], rtol=1e-5, atol=1e-5)
    for part in PARTS:
        only = denoiser(x, 0.4, {part: PARTS[part]}).x0
        beside = {other: v if other == part else condition.none().parts[other] for other, v in PARTS.items()}
        torch.testing.assert_close(only, denoiser(x, 0.4, beside).x0, rtol=1e-5, atol=1e-5)
        assert (only - free).abs().max() > 1e-4
    refused(lambda: denoiser(x, 0.4, condition[:4]), "'label'", "4", "6")


@pytest.mark.parametrize("name", NETS)
def test_guidance_of_scale_one_is_the_model_of_all_parts_and_of_scale_nought_of_none(name: Any) -> None:
    denoiser, condition = made(name), Condition(PARTS)
    x = torch.randn(B, 2, 4, 4, generator=generator())
    given, free = denoiser(x, 0.4, condition).x0, denoiser(x, 0.4, condition.none()).x0
    assert torch.equal(ClassifierFree(denoiser, 1.0)(x, 0.4, condition).x0, given)
    assert torch.equal(ClassifierFree(denoiser, 0.0)(x, 0.4, condition).x0, free)
    guided = ClassifierFree(denoiser, 3.0)(x, 0.4, condition).x0
    torch.testing.assert_close(guided, free + 3 * (given - free), rtol=1e-4, atol=1e-4)


def test_drawing_encoding_and_likelihoods_take_any_condition(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each verb gives a sample of a batch what it gives it alone: rows stay with their samples on every way."""
    monkeypatch.setattr(flow, "STEPS", 8)  # alone or not is the same at any number
    monkeypatch.setattr(flow, "DOUBLINGS", 0)
    denoiser = made()
    condition = Condition(PARTS)
    x = ornstein.sample(denoiser, (B, 2, 4, 4), steps=3, seed=0, condition=condition)
    back = ornstein.encode(denoiser, x, steps=3, condition=condition)
    density = ornstein.log_likelihood(denoiser, x, condition=PARTS, trace="hutchinson", probes=2).log_prob
    seeds = torch.arange(B)
    for i in (0, B - 1):
        row, one = slice(i, i + 1), condition[i : i + 1]
        alone = ornstein.sample(denoiser, (1, 2, 4, 4), steps=3, seeds=seeds[row], condition=one)
        torch.testing.assert_close(alone, x[row], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            ornstein.encode(denoiser, x[row], steps=3, condition=one), back[row], rtol=1e-4, atol=1e-4
        )
        found = ornstein.log_likelihood(denoiser, x[row], condition=one, trace="hutchinson", probes=2, seeds=[i])
        torch.testing.assert_close(found.log_prob, density[row], rtol=1e-4, atol=1e-3)
    free = ornstein.sample(denoiser, (B, 2, 4, 4), steps=3, seed=0)
    assert (free - x).abs().amax((1, 2, 3)).min() > 1e-3


def correlated(n: int, seed: int, rho: float = 0.9) -> tuple[Tensor, Tensor]:
    """Pairs (x, y) of unit variance and covariance rho: E[x given x_t, y] is linear in both."""
    y = torch.randn(n, generator=generator(seed))
    x = rho * y + math.sqrt(1 - rho**2) * torch.randn(n, generator=generator(seed + 1))
    return x[:, None], y


def test_a_number_is_learned_as_far_as_the_closed_form_goes() -> None:
    """Of a Gaussian pair: x given y is N(rho y, 1 - rho^2), and so E[x_0 given x_t, y] is known."""
    rho, process = 0.9, VP()
    net = MLP(width=64, depth=2, embedding=32).build((1,), {"y": Number()})
    denoiser, objective, g = NetDenoiser(net, process), OBJECTIVES["v"](drop_label=0.2), generator()
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    steps = 450
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        x, y = correlated(512, 10 + 2 * step)
        optimiser.zero_grad()
        objective(denoiser, x, {"y": y}, g).mean().backward()
        optimiser.step()
    x, y = correlated(4000, 5)
    for t in (0.3, 0.6, 0.9):
        level = process.at(t)
        noisy = level.noised(x, torch.randn(x.shape, generator=generator(9)))
        # the posterior of a Gaussian with mean rho y and variance v; without y of one with mean 0 and variance 1
        for given, mean, v in (({"y": y}, rho * y[:, None], 1 - rho**2), (None, 0.0, 1.0)):
            gain = level.alpha * v / (level.alpha**2 * v + level.sigma**2)
            exact = mean + gain * (noisy - level.alpha * mean)
            with torch.no_grad():
                error = (denoiser(noisy, t, given).x0 - exact).square().mean()
            # in units of what knowing y is worth, which it is at most a few hundredths of
            worth = (level.sigma**2 / (level.alpha**2 + level.sigma**2)) - v * level.sigma**2 / (
                level.alpha**2 * v + level.sigma**2
            )
            assert error < 0.05 * (worth if given else 1.0), (t, given is None, float(error))


# --- data ----------------------------------------------------------------------------------------------------------


def table(tmp_path: Path, n: int = 200, name: str = "table.npz", **more: Any) -> str:
    """x (N, 2) with a price in dollars, a kind, a size of two numbers, and what else is asked for."""
    g = np.random.default_rng(0)
    price = g.normal(12_000, 3_000, n)
    x = np.stack([price / 3_000 + g.normal(0, 0.3, n), g.normal(0, 1, n)], 1)
    arrays = {
        "x": x.astype(np.float32),
        "price": price,
        "kind": np.array(["car", "van", "bus"])[np.arange(n) % 3],
        "size": g.normal(5, 2, (n, 2)),
        **more,
    }
    np.savez(tmp_path / name, **arrays)
    return str(tmp_path / name)


def test_columns_are_read_by_type_and_shape(tmp_path: Path) -> None:
    n = 200
    pictures = np.random.default_rng(1).integers(0, 256, (n, 4, 4), dtype=np.uint8)
    path = table(
        tmp_path, rooms=np.arange(n) % 7, year=np.arange(n) + 1900, images=pictures, sketch=pictures[:, ::2, ::2]
    )
    names = ("price", "kind", "size", "rooms", "year", "sketch")
    data = open_data(path, key="images", condition=names).load()
    assert {name: column.about.kind for name, column in data.conditions.items()} == {
        "price": "number",
        "kind": "label",
        "size": "vector",
        "rooms": "label",
        "year": "number",
        "sketch": "picture",
    }
    assert data.conditions["kind"].about.classes == ("bus", "car", "van")
    assert data.conditions["sketch"].about.shape == (1, 2, 2)
    for name, column in data.conditions.items():
        about, part = column.about, column.train
        if about.kind != "label":  # standardised by the training part, to be undone
            others = [axis for axis in range(part.ndim) if axis != 1]
            assert part.double().mean(others).abs().max() < 1e-5
            assert (part.double().std(others, correction=0) - 1).abs().max() < 1e-5
        assert Known.from_dict(yaml.safe_load(yaml.safe_dump(about.to_dict()))) == about, name
    arrays = np.load(path)
    row = {tuple(x.flatten()): i for i, x in enumerate(arrays["images"])}
    x, condition = data.batch(0, 64, seed=0)
    back = data.transform.inverse(x, quantise=True)
    for i in range(64):  # conditions go with their examples, in the units of the file
        at = row[tuple(back[i].flatten().tolist())]
        known = {name: data.conditions[name].about for name in names}
        assert known["price"].units(condition.parts["price"])[i] == pytest.approx(arrays["price"][at], rel=1e-6)
        assert known["kind"].classes[condition.parts["kind"][i]] == arrays["kind"][at]
        found = known["size"].units(condition.parts["size"])[i].numpy()
        np.testing.assert_allclose(found, arrays["size"][at], rtol=1e-4, atol=1e-5)
        found = known["sketch"].units(condition.parts["sketch"])[i, 0].numpy()
        np.testing.assert_allclose(found, arrays["sketch"][at], atol=1e-3)
    assert "given price (a number around 1.21e+04 with spread" in data.describe()
    assert "'year' read as a number" in data.describe()


def test_files_with_parts_and_labels_keep_them_apart(tmp_path: Path) -> None:
    n = 40
    path = tmp_path / "split.npz"
    g = np.random.default_rng(0)
    arrays: dict[Any, Any] = {}
    for part, count in (("train", n), ("test", 10)):
        arrays |= {
            f"x_{part}": g.normal(size=(count, 3)),
            f"y_{part}": np.arange(count) % 2,
            f"price_{part}": np.arange(count) * 10.0,
        }
    np.savez(path, **arrays)
    data = Array(str(path), condition=("price", "y_train")).load()
    assert list(data.conditions) == ["label", "price"]
    about = data.conditions["price"].about
    assert about.units(data.conditions["price"].test).tolist() == pytest.approx([10.0 * i for i in range(10)], abs=1e-3)
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [0, 1] * 5
    assert data.classes == ("0", "1")


def test_numbers_that_are_not_known_are_absent(tmp_path: Path) -> None:
    price = np.linspace(1, 2, 200)
    price[::4] = np.nan
    data = Array(table(tmp_path, price=price), condition="price").load()
    share = data.train_condition.absent("price").double().mean()
    assert share == pytest.approx(0.25, abs=0.03)
    known = data.train_condition.parts["price"]
    assert known[~known.isnan()].mean().abs() < 1e-5


def test_a_mirrored_picture_takes_its_condition_with_it(tmp_path: Path) -> None:
    n = 50
    images = np.random.default_rng(1).integers(0, 256, (n, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "p.npz", x=images, mask=images.astype(np.float32))
    data = Array(str(tmp_path / "p.npz"), condition="mask", flip=True).load()
    x, condition = data.batch(0, 64, seed=0)
    back = data.transform.inverse(x, quantise=True).float()
    torch.testing.assert_close(data.conditions["mask"].about.units(condition.parts["mask"]), back, rtol=0, atol=1e-2)
    turned = {tuple(image.flatten()) for image in images[:, :, ::-1]}
    assert 10 < sum(tuple(row.flatten().int().tolist()) in turned for row in back) < 54


@pytest.mark.parametrize(
    ("more", "condition", "words"),
    [
        ({}, "prize", ["'prize'", "holds x, price, kind, size"]),
        ({"short": np.zeros(3)}, "short", ["'short'", "(3,)", "200"]),
        ({"none": np.full(200, np.nan)}, "none", ["'none'", "NaN in all"]),
        ({"far": np.full(200, np.inf)}, "far", ["'far'", "infinite"]),
        ({"odd": np.zeros(200, complex)}, "odd", ["'odd'", "complex"]),
        ({"unlabelled": np.full(200, -1)}, "unlabelled", ["'unlabelled'", "-1 throughout"]),
        ({"sketch": np.zeros((200, 1, 3, 3))}, "sketch", ["'sketch'", "1x3x3", "2"]),
    ],
)
def test_columns_that_cannot_be_are_refused(tmp_path: Path, more: Any, condition: Any, words: Any) -> None:
    refused(lambda: Array(table(tmp_path, **more), condition=condition).load(), *words)


def test_a_picture_larger_than_the_data_is_refused() -> None:
    rows = torch.arange(8), torch.arange(8, 10)
    drawn = np.random.default_rng(0).random
    refused(lambda: read_columns({"big": drawn((10, 1, 8, 8))}, *rows, (1, 4, 4)), "'big'", "1x8x8", "1x4x4")
    read_columns({"same": drawn((10, 1, 4, 4))}, *rows, (1, 4, 4))


def test_labels_alone_are_hashed_as_ever_and_old_facts_open() -> None:
    data = Digits().load()
    facts = data.fingerprint()
    assert facts["sha256"] == "5edd46987d0db0ec4c7a9797bfffb2d159974a7dcf32f0dd8ae197a6f4330a91"
    known = Known.of_facts(facts)
    assert known == {"label": Known("label", classes=tuple("0123456789"))}
    old = {key: value for key, value in facts.items() if key != "conditions"}
    assert Known.of_facts(old) == known
    assert Known.of_facts({**old, "classes": []}) == {}


def test_a_scale_is_content() -> None:
    """The same numbers in model space under another name or scale are other data."""
    data = Digits().load()
    part = torch.linspace(-1, 1, len(data.train)), torch.linspace(-1, 1, len(data.test))

    def hashed(name: Any, shift: Any) -> Any:
        column = Column(Known("number", shift=(shift,), scale=(2.0,)), *part)
        changed = {**data.conditions, name: column}
        return type(data)(data.name, data.train, data.test, changed, data.kind, data.transform).fingerprint()["sha256"]

    assert len({data.fingerprint()["sha256"], hashed("a", 0.0), hashed("b", 0.0), hashed("a", 1.0)}) == 4


# --- what a person says --------------------------------------------------------------------------------------------


def test_a_person_speaks_in_units_and_names() -> None:
    price = Known("number", shift=(100.0,), scale=(10.0,))
    assert price.model(110, 3).tolist() == [1.0] * 3
    assert price.model("90", 2).tolist() == [-1.0, -1.0]
    assert price.model([100, 120.0], 2).tolist() == [0.0, 2.0]
    assert price.model(None, 2).isnan().all()
    assert price.model(math.nan, 2).isnan().all()
    size = Known("vector", (2,), shift=(0.0, 1.0), scale=(1.0, 2.0))
    assert size.model([1, 5], 3).tolist() == [[1.0, 2.0]] * 3
    assert size.model(np.zeros((3, 2)), 3).tolist() == [[0.0, -0.5]] * 3
    assert size.model(None, 2).isnan().all()
    picture = Known("picture", (1, 2, 2), shift=(0.5,), scale=(0.5,))
    assert picture.model(torch.ones(1, 2, 2), 2).eq(1).all()
    kind = Known("label", classes=("car", "van"))
    assert kind.model("van", 2).tolist() == kind.model(1, 2).tolist() == kind.model("1", 2).tolist() == [1, 1]
    assert kind.model(["van", "car", None], 3).tolist() == [1, 0, -1]
    assert kind.model(torch.tensor([0, -1]), 2).tolist() == [0, -1]
    assert kind.model(np.array([1, -1], np.int32), 2).tolist() == [1, -1]
    assert kind.model(np.array(["van", "car"]), 2).tolist() == [1, 0]
    rooms = Known("label", classes=("1", "3", "7"))  # a number is the label of that name, and never counts them
    assert rooms.model(3, 1).tolist() == rooms.model("3", 1).tolist() == [1]
    refused(lambda: rooms.model(2, 1, "rooms"), "rooms=2", "1, 3, 7")
    refused(lambda: kind.model("tram", 1, "kind"), "kind='tram'", "car, van", "0 to 1")
    refused(lambda: kind.model(2, 1, "kind"), "kind=2", "0 to 1")
    refused(lambda: kind.model(["car"], 2, "kind"), "kind", "(1,)", "2")
    refused(lambda: kind.model(torch.tensor([0, 2]), 2, "kind"), "kind", "0 to 1")
    refused(lambda: price.model("cheap", 1, "price"), "price='cheap'", "a number around 100")
    refused(lambda: price.model(math.inf, 1, "price"), "price=inf", "finite")
    refused(lambda: price.model([1, 2, 3], 2, "price"), "price", "(3,)", "(2,)")
    refused(lambda: size.model(3.0, 2, "size"), "size", "2 numbers")
    refused(lambda: Known.from_dict({"kind": "smell"}), "'smell'", "label, number")
    refused(lambda: Known.from_dict({}), "describes no part")
    refused(lambda: Known("number", shift=(0.0,), scale=(0.0,)), "scale")


SMALL = ["net.width=16", "net.depth=1", "training.batch_size=64", "training.ema=[0.1]", "sampling.preview=0"]
SMALL += ["training.warmup=0", "sampling.steps=4", "sampling.ema=0.1"]


@pytest.mark.usefixtures("brief_reports")
def test_from_a_table_to_samples_of_a_price(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`data.condition=[...]` on the command line, trained, resumed, drawn from, measured; in the table's own units."""
    inner = inspect.unwrap(tune)  # a grid is chosen by fewer examples and levels as it is by more
    monkeypatch.setattr(inner, "__kwdefaults__", there(inner.__kwdefaults__) | {"count": 32, "levels": 40})
    path, out = table(tmp_path, 300), tmp_path / "cars"
    words = [
        "data.condition=[price,kind,size]",
        *SMALL,
        "training.steps=400",
        "training.lr=0.01",
        "training.validate_every=400",
    ]
    answer = cli("train", "array", f"data.path={path}", *words, "--out", out)
    assert answer.code == 0, answer.err
    facts = yaml.safe_load((out / "run.yaml").read_text())["data"]
    assert list(facts["conditions"]) == ["price", "kind", "size"]
    assert facts["conditions"]["price"]["shift"] == pytest.approx([12_000], rel=0.05)
    run = ornstein.load(out)
    assert run.conditions["kind"].classes == ("bus", "car", "van")
    cheap, dear = (run.sample(200, condition={"price": price}, seed=0)[:, 0].mean() for price in (9_000, 15_000))
    assert cheap == pytest.approx(3, abs=0.6)  # price / 3000
    assert dear == pytest.approx(5, abs=0.6)
    answer = cli("sample", out, "-n", 5, "--given", "price=9000", "--given", "kind=van", "--out", tmp_path / "s.npz")
    assert answer.code == 0, answer.err
    drawn = np.load(tmp_path / "s.npz")
    assert drawn["price"] == pytest.approx(np.full(5, 9_000), rel=1e-5)
    assert drawn["kind"].tolist() == [2] * 5
    for verb in (
        ("sample", out, "-n", 3, "--given", "price=9000", "--scale", 2, "--out", tmp_path / "g.npz"),
        ("sample", out, "-n", 3, "--out", tmp_path / "h.npz"),
        ("evaluate", out, "-n", 60, "--no-page"),
        ("loglik", out, "test", "-n", 3, "--conditional", "--out", tmp_path / "l.csv"),
        ("tune", out, "--steps", 2),
        ("train", "--resume", out, "training.steps=410", "sampling.preview=4"),
    ):
        answer = cli(*verb)
        assert answer.code == 0, (verb, answer.err)
    refusals: list[tuple[tuple[str, ...], list[str]]] = [
        (("--given", "prize=3"), ["prize=3", "price, kind, size"]),
        (("--given", "price=cheap"), ["price='cheap'", "a number"]),
        (("--given", "price"), ["--given 'price'", "price=12000"]),
        (("--label", "3"), ["label='3'", "price, kind, size"]),
    ]
    for asked, named in refusals:
        answer = cli("sample", out, *asked)
        assert answer.code == 2
        assert all(word in answer.err for word in named), answer.err


def test_a_price_in_dollars_trains_as_the_same_price_standardised(tmp_path: Path) -> None:
    """Also in millions of a small currency: what the network sees is the same, and so are its losses."""
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.train import train

    price = np.random.default_rng(0).normal(12_000, 3_000, 200)
    losses = []
    for i, (shift, scale) in enumerate([(0, 1), (12_000, 3_000), (0, 1e-6), (1e9, 1.0)]):
        path = table(tmp_path, name=f"{i}.npz", price=(price - shift) / scale)
        words = [f"data.path={path}", "data.condition=price", *SMALL, "training.steps=20", "training.log_every=5"]
        moments = train(Experiment.read("array", words), tmp_path / f"run-{i}")
        losses.append([moment.progress.loss for moment in moments])
    assert len(losses[0]) >= 4
    for found in losses[1:]:
        assert found == pytest.approx(losses[0], rel=1e-5)


def test_a_picture_is_made_finer(cli: Cli, tmp_path: Path) -> None:
    """Super-resolution: images given themselves at half the size, from an .npz on the command line."""
    images = Digits().load().train[:300, 0].numpy()
    small = images.reshape(300, 4, 2, 4, 2).mean((2, 4), dtype=np.float64)
    np.savez(tmp_path / "fine.npz", x=images, small=small.astype(np.float32))
    words = [
        "data.condition=small",
        "net=unet",
        "net.channels=8",
        "net.multipliers=[1,2]",
        "net.blocks=1",
        "net.attention=[]",
        "training.steps=100",
    ]
    words += [
        "training.batch_size=64",
        "training.lr=0.003",
        "training.warmup=0",
        "training.ema=[0.1]",
        "sampling.preview=0",
        "sampling.steps=8",
        "sampling.ema=0.1",
    ]
    answer = cli("train", "array", f"data.path={tmp_path / 'fine.npz'}", *words, "--out", tmp_path / "run")
    assert answer.code == 0, answer.err
    run = ornstein.load(tmp_path / "run")
    given = torch.from_numpy(small[:40, None])
    drawn = run.sample(40, condition={"small": given}, seed=0).double()[:, None]
    coarse = torch.nn.functional.avg_pool2d(drawn, 2)
    right, wrong = ((coarse - other).square().mean() for other in (given, given.roll(1, 0)))
    assert right < 0.35 * wrong


def test_a_function_sees_the_parts() -> None:
    def answer(x: Any, level: Any, condition: Any) -> Any:
        price = condition.parts["price"][:, None]
        return torch.where(condition.absent("price")[:, None], 0.0, price) + 0 * x

    denoiser = FunctionDenoiser(answer, VP())
    price = torch.tensor([1.0, math.nan, 3.0])
    x = ornstein.sample(denoiser, (3, 2), steps=3, seed=0, condition={"price": price})
    assert x.tolist() == [[1.0, 1.0], [0.0, 0.0], [3.0, 3.0]]
