"""The training loop: what a step does, what it refuses to do, and that a resumed run is the same run."""

import hashlib
import json
import math
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import there
from torch import nn

from ornstein.errors import InputError
from ornstein.optimisers import eager
from ornstein.training import DECAYS, Diverged, Log, Progress, Training, fit, latest, learning_rate

SMALL = Training(
    steps=12, warmup=3, log_every=1, checkpoint_every=100, snapshot_every=0, lr=1e-2, cpu=True, weight_decay=0.1
)
DATA = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Nets this small are slower on two, by far so when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """Everything that could break a resume: dropout, batch-norm statistics, an unused and a frozen parameter."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.SiLU(), nn.Linear(8, 3))
            self.unused = nn.Parameter(torch.randn(2))
            self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)

    def forward(self, x: Any) -> Any:
        return self.layers(x) + self.frozen


def plain(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 8), nn.SiLU(), nn.Linear(8, 3))


def denoising(net: Any, batch: Any, generator: Any) -> Any:
    (x,) = batch
    noisy = x + torch.randn(x.shape, generator=generator)
    return ((net(noisy) - x) ** 2).mean(1)


def identity(net: Any, batch: Any, generator: Any) -> Any:
    return ((net(batch[0]) - batch[0]) ** 2).mean(1)


def batches(step: int) -> Any:
    g = torch.Generator().manual_seed(step)
    return (DATA[torch.randint(0, 64, (16,), generator=g)],)


def run(net: Any, loss: Any, config: Any, folder: Any, **options: Any) -> Any:
    """Train to the end; the last `Progress` and all of them."""
    every = list(fit(net, loss, batches, config, folder, **options))
    return every[-1], every


def digest(folder: Any) -> str:
    """Of every tensor in the newest checkpoint: weights, averages and moments."""
    found = latest(folder)
    assert found is not None
    h = hashlib.sha256(str(found.step).encode())
    for file in sorted(found.state["files"]):
        for name, tensor in sorted(found.tensors(file).items()):
            h.update(f"{file} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            h.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return h.hexdigest()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[name]) for name, v in a.state_dict().items())


# Configuration and learning rate ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("steps", 10.5),
        ("steps", "many"),
        ("batch_size", True),
        ("lr", 0),
        ("lr", math.nan),
        ("betas", (0.9,)),
        ("betas", (0.9, 1.0)),
        ("weight_decay", -1),
        ("warmup", -1),
        ("clip", 0),
        ("ema", (0.3,)),
        ("ema", (0.05, 0.0501)),
        ("ema", 0.05),
        ("seed", -1),
        ("compile", "yes"),
        ("decay", "cosin"),
        ("precision", "fp8"),
    ],
)
def test_a_bad_field_is_named_with_its_value(field: Any, value: Any) -> None:
    with pytest.raises(InputError) as error:
        Training(**{field: value})
    assert f"training.{field}={value!r}" in str(error.value)


def test_lists_from_yaml_become_tuples() -> None:
    listed: dict[str, Any] = {"betas": [0.9, 0.95], "ema": [0.05]}  # as a file has them
    assert Training(**listed) == Training(betas=(0.9, 0.95), ema=(0.05,))


@pytest.mark.parametrize("decay", DECAYS)
@pytest.mark.parametrize("warmup", [0, 10])
def test_learning_rate_rises_from_above_zero_and_joins_its_decay_without_a_jump(decay: Any, warmup: Any) -> None:
    config = Training(steps=100, warmup=warmup, lr=2.0, decay=decay)
    rates = [learning_rate(config, k) for k in range(100)]
    assert all(0 < rate <= 2.0 for rate in rates)
    assert rates[:warmup] == [2.0 * (k + 1) / warmup for k in range(warmup)]
    assert rates[warmup] == pytest.approx(2.0, rel=0.06)
    assert all(a >= b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))


def test_learning_rate_values() -> None:
    at = {decay: learning_rate(Training(steps=100, warmup=20, lr=1.0, decay=decay), 79) for decay in DECAYS}
    assert at["constant"] == 1.0
    assert at["cosine"] == pytest.approx(0.5 * (1 + math.cos(math.pi * 59 / 80)))
    assert at["inverse-sqrt"] == pytest.approx(0.5)


# One step -----------------------------------------------------------------------------------------------------------


def test_training_is_the_plain_loop_that_it_claims_to_be(tmp_path: Path) -> None:
    config = replace(SMALL, steps=40, clip=0.5, decay="cosine")
    net, twin = plain(), plain()
    _, every = run(net, identity, config, tmp_path)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in twin.parameters() if p.ndim == 2], "weight_decay": 0.1},
            {"params": [p for p in twin.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        betas=config.betas,
    )
    for k, progress in enumerate(every):
        optimizer.zero_grad()
        loss = identity(twin, batches(k), None).mean()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(twin.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, k)
        optimizer.step()
        assert progress.step == k + 1
        assert progress.loss == pytest.approx(loss.item(), rel=1e-5)
        assert progress.grad_norm == pytest.approx(norm.item(), rel=1e-5)
        assert progress.lr == learning_rate(config, k)
    assert any(p.grad_norm > 0.5 for p in every)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "how"),
    [(torch.optim.AdamW, {"fused": True}), (torch.optim.Adam, {}), (torch.optim.LBFGS, {"max_iter": 3})],
)
def test_an_eager_optimiser_is_torchs_own_to_the_last_bit(kind: Any, how: Any) -> None:
    """Under a schedule, from a stored state on, and with a closure that wants gradients where `step` wants none."""
    nets, states = (plain(), plain()), []
    for net, made in zip(nets, (kind, eager(kind)), strict=True):
        optimizer = made(net.parameters(), lr=1e-2, **how)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=9, cycle_momentum=False)

        def loss(net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            found = net(DATA).square().mean()
            found.backward()
            return found

        for k in range(6):
            assert optimizer.step(loss).requires_grad
            schedule.step()
            if k == 2:
                optimizer.load_state_dict(optimizer.state_dict())
        states.append(optimizer.state_dict())
    assert all(torch.equal(p, q) for p, q in zip(*(net.parameters() for net in nets), strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(nets[0].parameters(), plain().parameters(), strict=True))
    assert repr(states[0]) == repr(states[1])
    assert eager(kind) is eager(kind)


def test_clipping_holds_the_gradient_to_its_norm(tmp_path: Path) -> None:
    seen = []
    net = plain()
    for clip in (None, 1e-2):
        it = fit(net, identity, batches, replace(SMALL, clip=clip), tmp_path / str(clip))
        progress = next(it)
        seen.append(float(torch.stack([there(p.grad).norm() for p in net.parameters()]).norm()))
        assert progress.grad_norm > 1e-2
    assert seen[0] > 1e-2
    assert seen[1] == pytest.approx(1e-2, rel=1e-3)


def test_weight_decay_spares_biases_and_gains(tmp_path: Path) -> None:
    net = Net()
    before = {name: p.detach().clone() for name, p in net.named_parameters()}

    def nothing(net: Any, batch: Any, generator: Any) -> Any:
        return sum((p * 0).sum() for p in net.parameters()) + batch[0][:, 0] * 0

    config = replace(SMALL, steps=1, warmup=0, lr=0.5, weight_decay=0.1)
    run(net, nothing, config, tmp_path)
    for name, p in net.named_parameters():
        shrunk = p.requires_grad and p.ndim >= 2
        torch.testing.assert_close(p.detach(), before[name] * (0.95 if shrunk else 1.0))


@pytest.mark.parametrize("pieces", [2, 3, 16])
def test_accumulating_pieces_is_the_whole_batch(pieces: Any, tmp_path: Path) -> None:
    whole, cut = plain(), plain()
    last, _ = run(whole, identity, SMALL, tmp_path / "whole")
    also, _ = run(cut, identity, replace(SMALL, accumulate=pieces), tmp_path / "cut")
    assert also.loss == pytest.approx(last.loss, rel=1e-5)
    for p, q in zip(whole.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-6)


def test_every_piece_and_every_step_has_noise_of_its_own(tmp_path: Path) -> None:
    drawn = []

    def record(net: Any, batch: Any, generator: Any) -> Any:
        drawn.append(torch.randn(8, generator=generator))
        return identity(net, batch, generator)

    run(plain(), record, replace(SMALL, accumulate=2), tmp_path / "a")
    first = [tuple(d.tolist()) for d in drawn]
    assert len(first) == 24 == len(set(first))
    drawn.clear()
    run(plain(), record, replace(SMALL, accumulate=2, seed=1), tmp_path / "b")
    assert not set(first) & {tuple(d.tolist()) for d in drawn}


def test_the_readers_random_numbers_and_evaluation_mode_do_not_enter(tmp_path: Path) -> None:
    quiet, noisy = Net(), Net()
    run(quiet, denoising, SMALL, tmp_path / "quiet")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    it = fit(noisy, denoising, batches, SMALL, tmp_path / "noisy")
    next(it)
    assert torch.equal(torch.get_rng_state(), before)
    for _ in it:
        torch.rand(3)
        noisy.eval()
    assert same(quiet, noisy)


def test_averages_follow_the_weights_of_every_step(tmp_path: Path) -> None:
    net: Any = plain()
    history: list[torch.Tensor] = []
    for progress in fit(net, denoising, batches, SMALL, tmp_path):
        history.append(net[0].weight.detach().clone())
        exponent = progress.ema._exponents[0.10]
        weights = ((torch.arange(len(history) + 1) / len(history)) ** exponent).diff()
        expected = torch.einsum("t,tij->ij", weights, torch.stack(history))
        torch.testing.assert_close(progress.ema.state(0.10)["0.weight"], expected, rtol=1e-4, atol=1e-6)


def test_progress_comes_when_it_should_and_means_over_its_window(tmp_path: Path) -> None:
    config = replace(SMALL, steps=23, log_every=5, validate_every=8)
    _, every = run(plain(), identity, config, tmp_path / "sparse")
    assert [p.step for p in every] == [1, 5, 8, 10, 15, 16, 20, 23]
    _, single = run(plain(), identity, replace(config, log_every=1), tmp_path / "dense")
    assert every[1].loss == pytest.approx(sum(p.loss for p in single[1:5]) / 4)
    assert every[-1].grad_norm == pytest.approx(sum(p.grad_norm for p in single[20:]) / 3)
    assert every[-1].remaining == 0
    assert all(p.rate > 0 for p in every)


def test_nested_batches_reach_the_loss_as_they_are(tmp_path: Path) -> None:
    def nested(step: Any) -> Any:
        (x,) = batches(step)
        return {"x": x, "condition": [x[:, 0], None]}

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        assert batch["condition"][1] is None
        assert batch["x"].shape == (8, 3)
        assert torch.equal(batch["x"][:, 0], batch["condition"][0])
        return identity(net, (batch["x"],), generator)

    assert len(list(fit(plain(), loss, nested, replace(SMALL, accumulate=2), tmp_path))) == 12


@pytest.mark.parametrize("bad", ["mean", "per pixel", "batch", "pieces", "frozen"])
def test_what_cannot_be_trained_is_refused(bad: Any, tmp_path: Path) -> None:
    net, config = plain(), SMALL
    loss: Any = identity
    source: Any = batches
    if bad == "mean":
        loss, match = lambda *a: identity(*a).mean(), r"loss has shape \(\); it must be \(16,\)"
    elif bad == "per pixel":
        loss, match = lambda net, b, g: (net(b[0]) - b[0]) ** 2, r"loss has shape \(16, 3\)"
    elif bad == "batch":
        source, match = lambda k: (DATA[:4], DATA[:5]), r"first dimension \[4, 5\]"
    elif bad == "pieces":
        config, match = replace(SMALL, accumulate=17), "training.accumulate=17"
    else:
        net.requires_grad_(False)
        match = "no parameters to train"
    with pytest.raises(InputError, match=match):
        list(fit(net, loss, source, config, tmp_path))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_computes_low_and_keeps_float32(precision: Any, tmp_path: Path) -> None:
    seen = set()

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        out = net(batch[0])
        seen.add(out.dtype)
        return ((out - batch[0]) ** 2).mean(1)

    low, full = plain(), plain()
    config = replace(SMALL, steps=60)
    last, _ = run(low, loss, replace(config, precision=precision), tmp_path / "low")
    exact, _ = run(full, identity, config, tmp_path / "full")
    assert seen == {getattr(torch, precision)}
    assert {p.dtype for p in low.parameters()} == {torch.float32}
    assert last.skipped == 0
    assert last.loss == pytest.approx(exact.loss, rel=0.05)
    assert not same(low, full)


def test_channels_last_trains_the_same_and_stays_so(tmp_path: Path) -> None:
    def images(step: Any) -> Any:
        return (torch.randn(8, 2, 6, 5, generator=torch.Generator().manual_seed(step)),)

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        layouts.add(batch[0].is_contiguous(memory_format=torch.channels_last))
        return ((net(batch[0]) - batch[0]) ** 2).flatten(1).mean(1)

    nets = [nn.Conv2d(2, 2, 3, padding=1) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    for net, last in zip(nets, (False, True), strict=True):
        layouts: set[bool] = set()
        config = replace(SMALL, steps=6, channels_last=last)
        list(fit(net, loss, images, config, tmp_path / str(last)))
        list(fit(net, loss, images, replace(config, steps=12), tmp_path / str(last), resume=True))
        assert layouts == {last}
        assert net.weight.is_contiguous(memory_format=torch.channels_last) == last
    torch.testing.assert_close(nets[0].weight, nets[1].weight, rtol=1e-4, atol=1e-6)


# What is not finite -------------------------------------------------------------------------------------------------


def poisoned(steps: Any, where: Any = 3) -> Any:
    def source(step: Any) -> Any:
        (x,) = batches(step)
        if step in steps:
            x = x.clone()
            x[where] = math.nan
        return (x,)

    return source


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_nan_batch_changes_nothing_and_is_described(precision: Any, tmp_path: Path) -> None:
    net = Net()
    levels: dict[int, torch.Tensor] = {}
    previous: list[Any] = []

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        level = torch.rand(len(batch[0]), generator=generator)
        levels.setdefault(len(levels), level)
        return ((net(batch[0] + level[:, None]) - batch[0]) ** 2).mean(1)

    def describe(batch: Any, generator: Any) -> Any:
        level = torch.rand(len(batch[0]), generator=generator)
        assert batch[0].isnan().any()
        return f"noise levels from {level.min():.6f} to {level.max():.6f}"

    config = replace(SMALL, precision=precision)
    it = fit(net, loss, poisoned({0, 5, 6}), config, tmp_path, describe=describe)
    for progress in it:
        states = [net.state_dict(), progress.ema.state(0.05), progress.ema.state(0.10)]
        states = [{name: v.clone() for name, v in s.items()} for s in states]
        if progress.step in (1, 6, 7):
            k = progress.step - 1
            assert progress.warnings == (
                f"Step {k + 1} is skipped: the loss is not finite for 16 of 16 samples (at 0, 1, 2, 3, 4, 5, 6, 7, ... "
                f"in batch {k}); noise levels from {levels[k].min():.6f} to {levels[k].max():.6f}.",
            )
            assert math.isnan(progress.loss)
        else:
            assert progress.warnings == ()
            assert math.isfinite(progress.loss)
        if progress.step in (6, 7):
            for now, then in zip(states, previous, strict=True):
                assert all(torch.equal(now[name], then[name]) for name in now)
        previous = states
    assert progress.skipped == 3
    assert all(v.isfinite().all() for s in states for v in s.values())
    moments = there(latest(tmp_path)).tensors("optimizer.safetensors")
    assert {float(v) for name, v in moments.items() if name.startswith("step/")} == {9.0}


def test_the_samples_at_fault_are_numbered_in_the_whole_batch(tmp_path: Path) -> None:
    said = []

    def describe(batch: Any, generator: Any) -> Any:
        said.append(batch[0].clone())
        return "that piece"

    config = replace(SMALL, accumulate=4)
    every = list(fit(plain(), identity, poisoned({2}, where=[6, 7, 13]), config, tmp_path, describe=describe))
    assert every[2].warnings == (
        "Step 3 is skipped: the loss is not finite for 3 of 16 samples (at 6, 7, 13 in batch 2); "
        "that piece; that piece.",
    )
    (x,) = poisoned({2}, where=[6, 7, 13])(2)
    torch.testing.assert_close(torch.cat(said), torch.cat([x[4:8], x[12:16]]), equal_nan=True)


def test_a_skipped_step_leaves_the_run_as_if_it_had_not_been(tmp_path: Path) -> None:
    """The averages do not count it either: they are correct from the first good step."""
    net, twin = plain(), plain()
    flat = replace(SMALL, warmup=0)
    list(fit(net, identity, poisoned({0}), flat, tmp_path / "a"))
    list(fit(twin, identity, lambda k: batches(k + 1), replace(flat, steps=11), tmp_path / "b"))
    a, b = there(latest(tmp_path / "a")), there(latest(tmp_path / "b"))
    for file in a.state["files"]:
        ours, theirs = a.tensors(file), b.tensors(file)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours | theirs)


def test_a_gradient_that_is_not_finite_is_caught_though_the_loss_is(tmp_path: Path) -> None:
    net = plain()

    def loss(net: Any, batch: Any, generator: Any) -> Any:
        return net(batch[0]).sum(1) * 0 + (net[0].weight.square().sum() * 0).sqrt()

    with pytest.raises(Diverged, match="the gradient is not finite, though the loss is 0") as error:
        list(fit(net, loss, batches, replace(SMALL, patience=2), tmp_path, describe=lambda b, g: "sigma = 3"))
    assert "sigma = 3" in str(error.value)
    assert same(net, plain())


def test_training_stops_after_so_many_in_a_row_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = replace(SMALL, steps=40, checkpoint_every=4, patience=5)
    source = poisoned({1, 2, 3, 4, *range(10, 40)})
    seen: list[Any] = []
    with pytest.raises(Diverged, match=r"Step 15 is skipped.*5 in a row.*checkpoint of step 12 is kept"):
        seen.extend(fit(plain(), identity, source, config, tmp_path))
    kept = there(latest(tmp_path))
    assert kept.step == 12
    assert kept.state["strikes"] == 2
    assert all(v.isfinite().all() for v in kept.tensors("model.safetensors").values())
    # Resuming counts on: three more, and it stops at the same step with the same words.
    with pytest.raises(Diverged, match=r"Step 15 is skipped.*5 in a row"):
        list(fit(plain(), identity, source, config, tmp_path, resume=True))
    # With the cause gone, it goes on.
    *_, last = fit(plain(), identity, poisoned({10, 11}), config, tmp_path, resume=True)
    assert (last.step, last.skipped) == (40, 6)


def test_float16_finds_its_loss_scale_without_complaint(tmp_path: Path) -> None:
    """Gradients of about 1e4 overflow at the first scales, more often in a row than `patience` has patience."""
    net = plain()

    def steep(net: Any, batch: Any, generator: Any) -> Any:
        return 1e4 * identity(net, batch, generator)

    config = replace(SMALL, steps=40, precision="float16", patience=3, clip=None)
    last, every = run(net, steep, config, tmp_path)
    assert 3 < last.skipped < 30
    assert [w for p in every for w in p.warnings] == []
    assert last.loss < next(p.loss for p in every if not math.isnan(p.loss))
    assert there(latest(tmp_path)).state["scaler"]["scale"] == 65536 / 2**last.skipped


# Resuming -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stop", [1, 6, 11])
def test_stopping_and_resuming_is_training_without_a_stop(precision: Any, stop: Any, tmp_path: Path) -> None:
    config = replace(SMALL, precision=precision, accumulate=2, log_every=3)
    whole, _ = run(Net(), denoising, config, tmp_path / "whole")
    list(fit(Net(), denoising, batches, replace(config, steps=stop), tmp_path / "parts"))
    resumed = Net(seed=99)  # whatever it was, it becomes the checkpoint
    last, every = run(resumed, denoising, config, tmp_path / "parts", resume=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "parts")
    assert every[0].step in (stop, stop + 1, stop + 2)
    assert (last.loss, last.grad_norm) == (whole.loss, whole.grad_norm)


def test_float16_resumes_its_scale(tmp_path: Path) -> None:
    def steep(net: Any, batch: Any, generator: Any) -> Any:
        return 1e4 * denoising(net, batch, generator)

    config = replace(SMALL, steps=20, precision="float16")
    run(Net(), steep, config, tmp_path / "whole")
    run(Net(), steep, replace(config, steps=3), tmp_path / "parts")
    assert there(latest(tmp_path / "parts")).state["scaler"]["scale"] < 65536
    run(Net(), steep, config, tmp_path / "parts", resume=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "parts")


def test_the_progress_of_the_resumed_step_is_given_again(tmp_path: Path) -> None:
    config = replace(SMALL, log_every=4)
    _, every = run(plain(), denoising, config, tmp_path / "whole")
    _, before = run(plain(), denoising, replace(config, steps=8), tmp_path / "parts")
    _, after = run(plain(), denoising, config, tmp_path / "parts", resume=True)

    def key(p: Progress) -> tuple[Any, ...]:
        return p.step, p.loss, p.grad_norm, p.lr

    assert [key(p) for p in before + after] == [key(p) for p in every[:3] + every[2:]]
    assert after[0].rate == 0
    assert after[0].remaining == math.inf
    _, finished = run(plain(), denoising, config, tmp_path / "parts", resume=True)
    assert [key(p) for p in finished] == [key(every[-1])]


def test_a_run_may_be_made_longer(tmp_path: Path) -> None:
    config = replace(SMALL, steps=30)
    run(plain(), denoising, config, tmp_path / "planned")
    run(plain(), denoising, replace(config, steps=10), tmp_path / "longer")
    run(plain(), denoising, replace(config, steps=20), tmp_path / "longer", resume=True)
    run(plain(), denoising, config, tmp_path / "longer", resume=True)
    assert digest(tmp_path / "planned") == digest(tmp_path / "longer")


@pytest.mark.parametrize("way", ["break", "close", "exception"])
def test_leaving_the_loop_saves_where_it_stood(way: Any, tmp_path: Path) -> None:
    run(Net(), denoising, SMALL, tmp_path / "whole")
    it = fit(Net(), denoising, batches, SMALL, tmp_path / "left")
    try:
        for progress in it:
            if progress.step == 7:
                if way == "exception":
                    raise ZeroDivisionError
                break
    except ZeroDivisionError:
        pass
    it.close()  # type: ignore[attr-defined]  # a generator, which `fit` does not promise
    assert there(latest(tmp_path / "left")).step == 7
    run(Net(), denoising, SMALL, tmp_path / "left", resume=True)
    assert digest(tmp_path / "whole") == digest(tmp_path / "left")


def test_ctrl_c_within_a_step_finishes_it_and_saves(tmp_path: Path) -> None:
    config = replace(SMALL, log_every=100)
    run(Net(), denoising, config, tmp_path / "whole")
    calls = []

    def interrupted(net: Any, batch: Any, generator: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return denoising(net, batch, generator)

    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with pytest.raises(KeyboardInterrupt):
        list(fit(Net(), interrupted, batches, config, tmp_path / "cut"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert there(latest(tmp_path / "cut")).step == 5
    list(fit(Net(), denoising, batches, config, tmp_path / "cut", resume=True))
    assert digest(tmp_path / "whole") == digest(tmp_path / "cut")


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    def stuck(net: Any, batch: Any, generator: Any) -> torch.Tensor:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the second one should have ended this")

    with pytest.raises(KeyboardInterrupt):
        list(fit(plain(), stuck, batches, SMALL, tmp_path))
    assert latest(tmp_path) is None


def test_training_runs_in_a_thread_too(tmp_path: Path) -> None:
    worker = threading.Thread(target=lambda: run(plain(), denoising, SMALL, tmp_path / "thread"))
    worker.start()
    worker.join()
    run(plain(), denoising, SMALL, tmp_path / "main")
    assert digest(tmp_path / "thread") == digest(tmp_path / "main")


def test_a_folder_with_a_run_is_not_trained_over(tmp_path: Path) -> None:
    run(plain(), denoising, SMALL, tmp_path)
    before = digest(tmp_path)
    with pytest.raises(InputError, match="holds a run of 12 steps; resume it or name another"):
        next(fit(plain(), denoising, batches, SMALL, tmp_path))
    assert digest(tmp_path) == before


def test_resuming_what_never_came_to_a_checkpoint_starts_over_and_says_so(tmp_path: Path) -> None:
    first = next(fit(plain(), denoising, batches, SMALL, tmp_path, resume=True))
    assert "starts from the beginning" in first.warnings[0]


@pytest.mark.parametrize("what", ["shape", "name", "dtype", "ema", "meta"])
def test_what_does_not_fit_the_checkpoint_is_named(what: Any, tmp_path: Path) -> None:
    meta = {"data": "digits 8x8", "range": [0, 16]}
    list(fit(plain(), denoising, batches, SMALL, tmp_path, meta=meta))
    net, config = plain(), replace(SMALL, steps=20)
    if what == "shape":
        net, match = (
            nn.Sequential(nn.Linear(3, 9), nn.SiLU(), nn.Linear(9, 3)),
            r"0.weight \(9, 3\) float32 where .* \(8",
        )
    elif what == "name":
        net, match = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 3)), r"1.weight \(3, 8\) float32 where .* \(missing\)"
    elif what == "dtype":
        net, match = plain().double(), "float64 where"
    elif what == "ema":
        config, match = replace(config, ema=(0.05, 0.20)), r"training.ema=\[0.05, 0.2\] cannot be resumed"
    else:
        meta, match = {**meta, "data": "digits 16x16"}, "data='digits 16x16' cannot be resumed.*'digits 8x8'"
    with pytest.raises(InputError, match=match):
        list(fit(net, denoising, batches, config, tmp_path, resume=True, meta=meta))
    list(
        fit(
            plain(),
            denoising,
            batches,
            replace(SMALL, steps=13),
            tmp_path,
            resume=True,
            meta={"data": "digits 8x8", "range": (0, 16)},
        )
    )


def test_saving_does_not_touch_the_live_weights(tmp_path: Path) -> None:
    often, never = Net(), Net()
    run(often, denoising, replace(SMALL, checkpoint_every=1, snapshot_every=1), tmp_path / "often")
    run(never, denoising, SMALL, tmp_path / "never")
    assert same(often, never)
    assert digest(tmp_path / "often") == digest(tmp_path / "never")


def test_snapshots_of_a_dead_future_are_dropped(tmp_path: Path) -> None:
    config = replace(SMALL, checkpoint_every=4, snapshot_every=2)
    it = fit(plain(), denoising, batches, config, tmp_path)
    while next(it).step < 7:
        pass

    def names() -> list[str]:
        return sorted({p.name[:13] for p in (tmp_path / "snapshots").iterdir()})

    assert names() == ["step-00000002", "step-00000004", "step-00000006"]
    killed = tmp_path.with_name("killed")
    shutil.copytree(tmp_path, killed)  # what is on the disk had the first been killed, which holds its folder meanwhile
    next(fit(plain(), denoising, batches, config, killed, resume=True))
    assert names() == ["step-00000002", "step-00000004", "step-00000006"]
    assert sorted({p.name[:13] for p in (killed / "snapshots").iterdir()}) == ["step-00000002", "step-00000004"]


# The log ------------------------------------------------------------------------------------------------------------


def lines(folder: Any) -> Any:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_log_holds_no_step_twice_after_a_resume(tmp_path: Path) -> None:
    log = Log(tmp_path, tensorboard=False)
    for step in (1, 10, 20, 30):
        log.write(step, {"loss": step / 10})
    log.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "lo')  # killed while writing
    log = Log(tmp_path, step=20, tensorboard=False)
    log.write(20, {"loss": 2.5})
    log.write(30, {"loss": math.nan, "rate": 3})
    log.close()
    assert lines(tmp_path) == [
        {"step": 1, "loss": 0.1},
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 2.5},
        {"step": 30, "loss": None, "rate": 3},
    ]


def test_log_of_a_stopped_run_is_the_log_of_a_whole_one(tmp_path: Path) -> None:
    def logged(folder: Any, config: Any, resume: Any = False) -> None:
        found = latest(folder)
        log = Log(folder, found.step if found else 0, tensorboard=False)
        for p in fit(Net(), denoising, batches, config, folder, resume=resume):
            log.write(p.step, {"loss": p.loss, "grad_norm": p.grad_norm, "lr": p.lr})
        log.close()

    config = replace(SMALL, log_every=5)
    logged(tmp_path / "whole", config)
    logged(tmp_path / "parts", replace(config, steps=5))
    logged(tmp_path / "parts", replace(config, steps=5), resume=True)
    logged(tmp_path / "parts", config, resume=True)
    assert lines(tmp_path / "whole") == lines(tmp_path / "parts")
    assert [row["step"] for row in lines(tmp_path / "whole")] == [1, 5, 10, 12]


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, value in ((0, 1.0), (2, 5.0)):
        log = Log(tmp_path, step=start)
        for step in range(start, 4):
            log.write(step, {"loss": value + step})
        log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert [(e.step, e.value) for e in events] == [(0, 1.0), (1, 2.0), (2, 7.0), (3, 8.0)]
