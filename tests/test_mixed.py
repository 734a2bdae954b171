"""Products of processes: the parts side by side, in closed form, and as a run."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from laws import refused
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.clocks import VP, Cosine, Flow
from ornstein.core.condition import Condition
from ornstein.core.drive import trajectory
from ornstein.core.exact import Gaussian
from ornstein.core.walk import end
from ornstein.data import Transform, open_data
from ornstein.discrete import KERNELS, TOKEN_STEPPERS, draw_tokens
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.laws.tokens import chi_square, law
from ornstein.mixed import Independent, NumbersOfAClass, Part, Parts, draw_parts
from ornstein.mixed.drive import _APART
from ornstein.samplers import STEPPERS

F64 = torch.float64


def oracle(kernel: str = "absorbing") -> NumbersOfAClass:
    """Two numbers of three classes, nothing symmetric."""
    mean = torch.tensor([[1.5, -0.5], [-1.0, 0.8], [0.2, 2.0]], dtype=F64)
    variance = torch.tensor([[0.1, 0.3], [0.4, 0.05], [0.2, 0.2]], dtype=F64)
    return NumbersOfAClass(torch.tensor([0.5, 0.3, 0.2], dtype=F64), mean, variance, Cosine(), KERNELS[kernel]())


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
@pytest.mark.parametrize("stepper", ["ddpm", "heun", "dpm++2m"])
def test_a_product_of_independent_parts_is_the_parts(stepper: str, kernel: str) -> None:
    """Bit for bit: each part as it is drawn alone by its own seeds, whatever stands beside it and in whatever order."""
    numbers, tokens = Gaussian(torch.tensor([0.3, -0.8]), 0.25).denoiser(VP()), law(KERNELS[kernel]())
    steppers: dict[str, Any] = {"x": STEPPERS[stepper](), "c": TOKEN_STEPPERS["token-ancestral"]()}
    seeds = torch.arange(4) + 11
    for order in (("x", "c"), ("c", "x"), ("x",), ("c",)):
        models = {name: {"x": numbers, "c": tokens}[name] for name in order}
        joint = Independent(models, {"x": (2,)})
        last = end(draw_parts(joint, 4, {name: steppers[name] for name in order}, steps=7, seeds=seeds)).x
        for place, name in enumerate(order):
            own = seeds + place * _APART
            if name == "x":
                alone = end(trajectory(numbers, (4, 2), steppers["x"], steps=7, seeds=own)).x
            else:
                alone = end(draw_tokens(tokens, 4, steppers["c"], steps=7, seeds=own)).x
            assert torch.equal(last[name], alone)
    twins = Independent({"a": numbers, "b": numbers}, {"a": (2,), "b": (2,)})
    both = end(draw_parts(twins, 4, {"a": steppers["x"], "b": steppers["x"]}, steps=2, seeds=seeds)).x
    assert not bool((both["a"] == both["b"]).any())


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_closed_form_is_bayes_rule(kernel: str) -> None:
    """Of the class by enumeration; of the numbers by a sum over many draws of x_0."""
    model = oracle(kernel)
    levels = {"numbers": model.numbers.at(0.45), "label": model.label.at(0.6)}
    x = {"numbers": torch.tensor([[0.4, 0.9]]), "label": torch.tensor([[0.0, 1.0, 0.0]])}
    said = model.predict(x, levels, Condition.of(None))
    dice = torch.Generator().manual_seed(0)
    c = torch.multinomial(model.shares, 400_000, True, generator=dice)
    x0 = model.mean[c] + model.variance[c].sqrt() * torch.randn(len(c), 2, generator=dice, dtype=F64)
    level = levels["numbers"]
    log_w = -0.5 * ((x["numbers"] - level.alpha * x0) / level.sigma).square().sum(1)
    seen = model.label.log_columns(torch.tensor([[1]]), 3, float(levels["label"].alpha))[0, 0, :3].double()
    w = (log_w + seen[c]).softmax(0)
    assert torch.allclose(said["numbers"].x0[0].double(), w @ x0, atol=0.02)  # type: ignore[union-attr]
    expected = torch.stack([w[c == k].sum() for k in range(3)])
    label = said["label"]
    assert isinstance(label, Tensor)
    assert torch.allclose(label.exp()[0, 0].double(), expected, atol=0.02)


@pytest.mark.parametrize("kernel", ["absorbing", "uniform"])
def test_what_is_drawn_together_has_the_joint_law(kernel: str) -> None:
    model, n = oracle(kernel), 6000
    ways: dict[str, Any] = {"numbers": STEPPERS["ddpm"](), "label": TOKEN_STEPPERS["token-ancestral"]()}
    last = end(draw_parts(model, n, ways, steps=60, seed=3)).x
    label = last["label"].argmax(1)
    assert abs(chi_square(label[:, None], model.shares)) < 5
    for k in range(3):
        mine = last["numbers"][label == k].double()
        error = (model.variance[k] / len(mine)).sqrt()
        assert bool(((mine.mean(0) - model.mean[k]).abs() < 5 * error + 0.03).all())
        assert torch.allclose(mine.var(0), model.variance[k], rtol=0.15, atol=0.02)
    # either given the other
    first = torch.zeros(n, 3)
    first[:, 0] = 1
    given = end(draw_parts(model, n, {"numbers": ways["numbers"]}, steps=40, seed=1, known={"label": first})).x
    assert torch.equal(given["label"], first)
    assert torch.allclose(given["numbers"].double().mean(0), model.mean[0], atol=0.04)
    at = torch.tensor([0.6, 0.9]).expand(n, 2)
    told = end(draw_parts(model, n, {"label": ways["label"]}, steps=1, seed=1, known={"numbers": at})).x
    density = model.shares.log() - 0.5 * ((at[0] - model.mean).square() / model.variance + model.variance.log()).sum(1)
    assert abs(chi_square(told["label"].argmax(1)[:, None], density.softmax(0))) < 5


def test_a_row_does_not_depend_on_its_batch_and_calls_are_counted() -> None:
    model, seeds = oracle(), torch.arange(5) + 3
    ways: dict[str, Any] = {"numbers": STEPPERS["heun"](), "label": TOKEN_STEPPERS["first-hitting"]()}

    def drawn(rows: Tensor) -> dict[str, Tensor]:
        return end(draw_parts(model, len(rows), ways, steps=6, seeds=rows)).x

    together = drawn(seeds)
    for i in range(5):
        alone = drawn(seeds[i : i + 1])
        assert all(torch.allclose(alone[name], together[name][i : i + 1], atol=1e-6) for name in together)
    one = {"numbers": STEPPERS["ddim"](), "label": TOKEN_STEPPERS["token-ancestral"]()}
    assert end(draw_parts(model, 2, one, steps=9, seed=0)).calls == 9  # one question about both parts a step


def test_parts_lie_end_to_end() -> None:
    parts = Parts({"x": Part(Flow(), (2, 3)), "c": Part(KERNELS["uniform"](), categories=Categories((4, 4)))})
    x = torch.randn(5, parts.width, generator=torch.Generator().manual_seed(0))
    assert (parts.width, parts.unpacked(x)["x"].shape) == (14, (5, 2, 3))
    assert torch.equal(parts.packed(parts.unpacked(x)), x)


def test_what_does_not_fit_is_refused() -> None:
    model, ddpm = oracle(), STEPPERS["ddpm"]()
    refused(lambda: Part(Flow(), categories=Categories((3,))), "kernel")
    refused(lambda: draw_parts(model, 2, {"numbers": ddpm}, steps=3, seed=0), "'label'", "tokens")
    refused(lambda: draw_parts(model, 2, {"colour": ddpm}, steps=3, seed=0), "'colour'", "numbers, label")
    refused(lambda: draw_parts(model, 2, {}, steps=0, seed=0), "steps=0")
    wrong = {"label": torch.zeros(2, 4)}
    refused(lambda: draw_parts(model, 2, {"numbers": ddpm}, steps=2, seed=0, known=wrong), "(2, 3)")


def test_a_class_goes_to_model_space_and_back() -> None:
    data = open_data("labelled", of="digits").load()
    assert data.shape == (65,)
    z = data.transform.forward(data.train[:9])
    assert z.shape == (9, 74)
    assert torch.allclose(data.transform.inverse(z), data.train[:9], atol=1e-4)
    assert torch.equal(Transform.from_dict(data.transform.to_dict()).forward(data.train[:9]), z)
    refused(lambda: open_data("labelled", of="swiss-roll").load(), "label for every row")


def test_moons_are_drawn_with_their_class(tmp_path: Path, cli: Any) -> None:
    told = [
        "training.steps=250",
        "training.validate_every=250",
        "net.width=64",
        "training.lr=4e-3",
        "data.of.count=4000",
    ]
    for _ in train(Experiment.read("labelled-moons", [*told, "sampling.preview=64"]), tmp_path / "run", draws=False):
        pass
    run = Run.load(tmp_path / "run")
    x = run.sample(400, seed=0, steps=16)
    data = run.load_data()
    assert math.isclose(float((x[:, 2] == 1).float().mean()), 0.5, abs_tol=0.12)
    near = torch.cdist(x[:, :2], data.train[:, :2].float()).argmin(1)
    assert float((data.train[near, 2] == x[:, 2]).float().mean()) > 0.9
    for label in ("0", "1"):
        words = ["-n", "100", "--label", label, "--steps", "16", "--out", str(tmp_path / f"of-{label}.npz")]
        result = cli("sample", str(tmp_path / "run"), *words)
        assert result.code == 0, result.err
        given = torch.tensor(np.load(tmp_path / f"of-{label}.npz")["samples"])
        assert bool((given[:, 2] == int(label)).all())
        near = torch.cdist(given[:, :2], data.train[:, :2].float()).argmin(1)
        assert float((data.train[near, 2] == int(label)).float().mean()) > 0.9
    refused(lambda: run.sample(2, label=[0, -1], seed=0), "for all rows or for none")
    drawn = {}
    for precision in ("float32", "bfloat16", "auto"):
        words = ["-n", "50", "--precision", precision, "--out", str(tmp_path / f"{precision}.npz")]
        result = cli("sample", str(tmp_path / "run"), *words)
        assert result.code == 0, result.err
        drawn[precision] = torch.tensor(np.load(tmp_path / f"{precision}.npz")["samples"])
    off = (drawn["bfloat16"][:, :2] - drawn["float32"][:, :2]).abs().median()
    assert 1e-4 < off < 0.1  # rounded, and no other samples
    result = cli("sample", str(tmp_path / "run"), "-n", "4", "--grid", "flow")
    assert result.code == 2
    assert "each part has its own" in result.err
