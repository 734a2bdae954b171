"""Checkpoints under SIGKILL, damage and a full disk.

Run as a script this file is the process that is killed: it has torch loaded once and forks a trainer per death, so that
a death costs milliseconds. See `main` at the end.
"""

import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from sure import there
from torch import nn

from ornstein.errors import InputError
from ornstein.training import Training, fit, latest, manifest
from ornstein.training.checkpoint import save, sweep

CONFIG = Training(
    steps=60, warmup=10, log_every=4, checkpoint_every=3, snapshot_every=10, keep=2, lr=1e-2, cpu=True, accumulate=2
)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    """Nets this small are slower on two, by far so when the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def net(width: int = 8) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, 3))


def loss(net: Any, batch: Any, generator: Any) -> Any:
    noisy = batch + torch.randn(batch.shape, generator=generator)
    return ((net(noisy) - batch) ** 2).mean(1)


def batches(step: int) -> torch.Tensor:
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(step))


def train(folder: Path, config: Training = CONFIG, resume: bool = True, width: int = 8) -> None:
    for _ in fit(net(width), loss, batches, config, folder, resume=resume):
        pass


def digest(folder: Path) -> str:
    """Of all that a run leaves: the newest checkpoint, the weights in the open, the snapshots."""
    found = latest(folder)
    assert found is not None
    h = hashlib.sha256(str(found.step).encode())
    h.update(json.dumps({key: found.state[key] for key in ("updates", "strikes", "skipped", "window")}).encode())
    for path in sorted([*found.path.glob("*.safetensors"), *folder.glob("*.safetensors"), *folder.glob("snapshots/*")]):
        h.update(f"{path.relative_to(folder)} ".encode() + path.read_bytes())
    return h.hexdigest()


def hidden(folder: Path) -> list[Path]:
    return [p for p in folder.rglob(".*") if p.is_file() or p.is_dir()]


@pytest.fixture
def trained(tmp_path: Path) -> Any:
    train(tmp_path, Training(steps=9, checkpoint_every=3, keep=2, cpu=True, snapshot_every=3))
    return tmp_path


# Death --------------------------------------------------------------------------------------------------------------


def script(mode: str, *more: object) -> dict[str, Any]:
    """In memory where that can be had: a killed process, unlike a power cut, does not ask what had reached the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        command = [sys.executable, __file__, mode, folder, *map(str, more)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kills", [12, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_and_resumed_it_is_the_same_run_bit_for_bit(kills: int) -> None:
    """At random moments of training and saving, again and again."""
    result = script("moments", kills)
    assert result["kills"] >= kills
    assert result["resumed"] >= 0.4 * kills  # deaths that left a checkpoint to resume from, rather than none yet
    assert result["different"] == []


@pytest.mark.parametrize("apart", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_at_each_change_to_the_disk_during_a_save_it_is_the_same_run_bit_for_bit(apart: int) -> None:
    """The n-th file-system call of a save is the last one, for every n, or for one in five."""
    result = script("calls", apart)
    assert result["kills"] >= 20
    assert {"open", "os.rename", "os.rmdir", "shutil.copyfile"} <= set(result["events"])
    assert result["unreadable"] == []
    assert result["different"] == []


def test_two_processes_are_one_process_with_twice_the_pieces() -> None:
    """Over gloo; same noise, same dropout, same gradient, and a stop that both agree on."""
    result = script("processes")
    assert result["largest difference"] < 1e-5
    assert result["interrupted at"] == [7, 7]
    assert result["resumed difference"] == 0


def test_what_a_killed_write_of_tensors_left_is_swept_up(trained: Any) -> None:
    left = trained / "snapshots" / ".tmp3yRXem"  # by such a name safetensors writes before it renames
    left.write_bytes(b"half")
    train(trained, Training(steps=12, checkpoint_every=3, keep=2, cpu=True, snapshot_every=3), resume=True)
    assert not left.exists()


# Damage -------------------------------------------------------------------------------------------------------------


def remembering(folder: Path, steps: int, resume: bool = False, spoil: int | None = None) -> dict[str, torch.Tensor]:
    """Train with a loss whose noise is a chain that goes on from step to step, and give the chain back."""
    memory = {"chain": torch.zeros(16, 3)}

    def walk(net: Any, batch: Any, generator: Any) -> Any:
        memory["chain"].mul_(0.5).add_(torch.randn(batch.shape, generator=generator))
        error = ((net(batch + memory["chain"]) - batch) ** 2).mean(1)
        return error * torch.nan if spoil is not None and bool((batch == batches(spoil)).all()) else error

    config = Training(steps=steps, warmup=10, log_every=4, checkpoint_every=5, lr=1e-2, cpu=True)
    for _ in fit(net(), walk, batches, config, folder, resume=resume, memory=memory):
        pass
    return memory


def test_what_a_loss_remembers_is_restored_bit_for_bit(tmp_path: Path) -> None:
    whole = remembering(tmp_path / "whole", 12)
    remembering(tmp_path / "parts", 7)
    parts = remembering(tmp_path / "parts", 12, resume=True)
    torch.testing.assert_close(parts, whole, rtol=0, atol=0)
    assert digest(tmp_path / "parts") == digest(tmp_path / "whole")


def test_a_step_that_is_not_finite_is_not_remembered(tmp_path: Path) -> None:
    before = remembering(tmp_path / "before", 6)
    after = remembering(tmp_path / "after", 7, spoil=6)
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_what_a_loss_remembers_must_fit(tmp_path: Path) -> None:
    train(tmp_path, CONFIG, resume=False)
    with pytest.raises(InputError, match="remembered nothing"):
        list(fit(net(), loss, batches, CONFIG, tmp_path, resume=True, memory={"chain": torch.zeros(2)}))


def test_a_checkpoint_has_everything_and_only_the_newest_are_kept(trained: Any) -> None:
    files = {"model.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors", "optimizer.safetensors"}
    assert sorted(p.name for p in (trained / "checkpoints").iterdir()) == ["step-00000006", "step-00000009"]
    found = there(latest(trained))
    assert found.step == 9
    assert {p.name for p in found.path.iterdir()} == files | {"state.json"}
    assert found.state["versions"]["torch"] == torch.__version__
    for name in files - {"optimizer.safetensors"}:
        assert (trained / name).read_bytes() == (found.path / name).read_bytes()
    assert hidden(trained) == []


def test_there_is_no_checkpoint_in_an_empty_or_missing_folder(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    assert latest(tmp_path / "nowhere") is None


FILES = ["model.safetensors", "ema-0.050.safetensors", "ema-0.100.safetensors", "optimizer.safetensors", "state.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("how", ["one bit", "cut", "empty", "gone"])
def test_damage_to_any_file_is_found_and_named_with_the_way_out(file: Any, how: Any, trained: Any) -> None:
    found = there(latest(trained))
    path = found.path / file
    content = bytearray(path.read_bytes())
    if how == "one bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[:-1])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()
    with pytest.raises(
        InputError, match=f"step-00000009/{file} is .*; delete .*step-00000009 to continue from step 6."
    ):
        train(trained)
    assert (found.path.parent / "step-00000006").is_dir()  # nothing was swept or rolled back on its own
    shutil.rmtree(found.path)
    train(trained, Training(steps=9, checkpoint_every=3, keep=2, cpu=True, snapshot_every=3))
    assert there(latest(trained)).step == 9


def test_random_bits_anywhere_are_found(trained: Any) -> None:
    rng = random.Random(0)
    found = there(latest(trained))
    for _ in range(60):
        path = found.path / rng.choice(FILES)
        content = path.read_bytes()
        place = rng.randrange(len(content))
        path.write_bytes(content[:place] + bytes([content[place] ^ (1 << rng.randrange(8))]) + content[place + 1 :])
        with pytest.raises(InputError, match="damaged"):
            latest(trained)
        path.write_bytes(content)
    assert there(latest(trained)).step == 9


def test_with_nothing_older_it_says_so(trained: Any) -> None:
    for path in (trained / "checkpoints").iterdir():
        (path / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"model.safetensors is missing; there is no older checkpoint to continue from"
    ):
        latest(trained)


def test_a_newer_format_is_refused(trained: Any) -> None:
    path = there(latest(trained)).path / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    with pytest.raises(InputError, match=r"newer version of ornstein \(checkpoint format 2.*update ornstein"):
        latest(trained)


def test_leftovers_do_not_count_and_are_swept_by_the_next_run_only(trained: Any) -> None:
    left = trained / "checkpoints" / ".step-00000012"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    (trained / ".model.safetensors").write_bytes(b"half")
    (trained / ".metrics-of-mine").write_bytes(b"not ours")
    assert there(latest(trained)).step == 9
    assert left.is_dir()  # reading sweeps nothing: the run may be writing just now
    sweep(trained)
    assert hidden(trained) == [trained / ".metrics-of-mine"]


def test_weights_in_the_open_are_those_of_the_checkpoint_resumed_from(trained: Any) -> None:
    """Whatever was done to them: they are copies, which no checkpoint depends on."""
    (trained / "model.safetensors").write_bytes(b"of another time")
    (trained / "ema-0.050.safetensors").unlink()
    train(trained, Training(steps=9, checkpoint_every=3, cpu=True, snapshot_every=3))
    for name in ("model.safetensors", "ema-0.050.safetensors"):
        assert (trained / name).read_bytes() == (there(latest(trained)).path / name).read_bytes()


# A full disk --------------------------------------------------------------------------------------------------------

WIDE = Training(steps=9, checkpoint_every=3, keep=2, cpu=True, snapshot_every=0)


def survives(folder: Path) -> None:
    """After a save that failed: the older checkpoint is whole, nothing lies about, and training goes on from it."""
    assert there(latest(folder)).step == 3
    assert hidden(folder) == []
    assert (folder / "model.safetensors").read_bytes() == (
        there(latest(folder)).path / "model.safetensors"
    ).read_bytes()


def test_a_full_disk_is_one_sentence_and_the_checkpoint_before_it_survives(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode
    ):
        pytest.skip("needs the right to mount a file system; the test below does the same with a size limit")
    try:
        ballast = disk / "ballast"
        train(disk, Training(steps=3, checkpoint_every=3, cpu=True), width=1000)
        ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 60_000))  # a checkpoint takes about 170 kB
        with pytest.raises(InputError, match=r"step-00000006 could not be written \(.*No space left.*\)"):
            train(disk, WIDE, width=1000)
        survives(disk)
        ballast.unlink()
        train(disk, WIDE, width=1000)
        assert there(latest(disk)).step == 9
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_refused_write_is_one_sentence_and_the_checkpoint_before_it_survives(tmp_path: Path) -> None:
    train(tmp_path, Training(steps=3, checkpoint_every=3, cpu=True), width=1000)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(InputError, match=r"step-00000006 could not be written \(.*\); what was saved before"):
            train(tmp_path, WIDE, width=1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    survives(tmp_path)
    train(tmp_path, WIDE, width=1000)
    assert there(latest(tmp_path)).step == 9


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="could not be written"):
        save(tmp_path / "file" / "run", 1, {}, {})


# The process that is killed -----------------------------------------------------------------------------------------


def forked(work: Any) -> int:
    """Run `work` in a child and return its process id."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return pid


def finish(work: Any) -> None:
    _, status = os.waitpid(forked(work), 0)
    assert status == 0, f"the trainer ended with {status}"


def killed_at_moments(folder: Path, kills: int) -> dict[str, Any]:
    took = []
    for name in ("whole", "again"):
        start = time.perf_counter()
        finish(lambda name=name: train(folder / name))
        took.append(time.perf_counter() - start)
    whole, reference = min(took), digest(folder / "whole")
    assert digest(folder / "again") == reference
    rng = random.Random(0)
    result: dict[str, Any] = {"kills": 0, "resumed": 0, "mid-save": 0, "different": []}
    runs = 0
    while result["kills"] < kills:  # as many runs as it takes
        runs += 1
        run = folder / f"run-{runs}"
        while True:
            pid = forked(lambda run=run: train(run))
            if result["kills"] < kills:
                time.sleep(rng.uniform(0.02, 0.4) * whole)
                os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            if status == 0:
                break
            assert status == signal.SIGKILL
            result["kills"] += 1
            result["resumed"] += latest(run) is not None
            result["mid-save"] += bool(hidden(run))
        if digest(run) != reference:
            result["different"].append(runs)
    return result


def killed_at_calls(folder: Path, apart: int) -> dict[str, Any]:
    base, run = folder / "base", folder / "run"
    finish(lambda: train(base, Training(steps=6, checkpoint_every=3, keep=1, cpu=True, snapshot_every=8)))
    config = Training(steps=9, checkpoint_every=3, keep=1, cpu=True, snapshot_every=8)
    shutil.copytree(base, run)
    finish(lambda: train(run, config))
    reference = digest(run)
    result: dict[str, Any] = {"kills": 0, "events": [], "unreadable": [], "different": []}
    watched = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.copyfile"}

    def die_at(n: int) -> None:
        count = 0

        def watch(event: Any, arguments: Any) -> None:
            nonlocal count
            if event in watched and arguments and str(run) in str(arguments[0]):
                count += 1
                if count == n:
                    os.write(report[1], event.encode())
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        train(run, config)

    status, n = 1, 0
    while status:
        n += apart
        shutil.rmtree(run)
        shutil.copytree(base, run)
        report = os.pipe()
        _, status = os.waitpid(forked(lambda n=n: die_at(n)), 0)
        os.close(report[1])
        event = os.read(report[0], 100).decode()
        os.close(report[0])
        if status == 0:
            break
        assert status == signal.SIGKILL
        result["kills"] += 1
        result["events"].append(event)
        try:
            assert there(latest(run)).step in (6, 9)
            for path in run.glob("*.safetensors"):  # whichever it is, the manifest knows it
                manifest.check(run, path.name)
        except Exception as error:
            result["unreadable"].append([n, event, str(error)])
            continue
        finish(lambda: train(run, config))
        if digest(run) != reference or hidden(run):
            result["different"].append([n, event])
    return result


def two_processes(folder: Path) -> dict[str, Any]:
    config = Training(steps=12, warmup=0, log_every=100, cpu=True, snapshot_every=0, checkpoint_every=100)
    port = str(random.Random(os.getpid()).randrange(20_000, 60_000))

    def plain() -> nn.Sequential:  # statistics of a batch norm would depend on the split
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 3))

    def ranks(run: Path, at: int | None = None) -> None:
        def work(rank: int) -> None:
            os.environ.update(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port
            )

            def source(step: int) -> torch.Tensor:
                if step == at and rank == 1:
                    os.kill(os.getpid(), signal.SIGINT)
                return batches(step)

            try:
                for _ in fit(plain(), loss, source, config, run, resume=True):
                    pass
            except KeyboardInterrupt:
                (run / f"stopped-{rank}").write_text(str(there(latest(run)).step))
            torch.distributed.destroy_process_group()

        children = [forked(lambda rank=rank: work(rank)) for rank in (0, 1)]
        for pid in children:
            assert os.waitpid(pid, 0)[1] == 0

    def alone() -> None:
        for _ in fit(plain(), loss, batches, Training(**{**vars(config), "accumulate": 2}), folder / "one"):
            pass

    def difference(a: str, b: str) -> float:
        first, second = there(latest(folder / a)), there(latest(folder / b))
        assert first.step == second.step == 12
        return max(
            float((x - second.tensors(file)[name]).abs().max())
            for file in first.state["files"]
            for name, x in first.tensors(file).items()
        )

    finish(alone)
    ranks(folder / "two")
    ranks(folder / "cut", at=5)
    stopped = [int((folder / "cut" / f"stopped-{rank}").read_text()) for rank in (0, 1)]
    ranks(folder / "cut")
    return {
        "largest difference": difference("one", "two"),
        "interrupted at": stopped,
        "resumed difference": difference("two", "cut"),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    mode, place = sys.argv[1], Path(sys.argv[2])
    if mode == "processes":  # what is loaded here no child has to load; none may have met others before it is forked
        import torch._dynamo
        import torch.distributed
    else:
        train(place / "warm")  # no child has to load anything
    work: Any = {"moments": killed_at_moments, "calls": killed_at_calls, "processes": two_processes}[mode]
    print(json.dumps(work(place, *map(int, sys.argv[3:]))))
