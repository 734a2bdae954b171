"""Does the suite notice when the program is wrong? `python tests/mutants.py` changes it, one place at a time, and asks.

First every test file runs once, and probes tell which test reaches which of these places (tests/reached.py). Then each
mutation of the sample is made in a copy of the source, and the tests that reach it run there until one fails: a few
cases of each test function first, the quick ones before the slow ones, then all of them. What no test notices survives.
A survivor is either a test that is missing, or it is named with a reason in tests/mutants.yaml: it changes nothing that
a test could see, or nothing that one should.

Everything is kept as it is found. Called again, it goes on where it was: what was killed stays so while its file is the
same, what survived is tried again when a test has changed.
"""

import argparse
import compileall
import contextlib
import dataclasses
import hashlib
import importlib
import json
import math
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mutations import Mutation, drawn, lines_of_code, mutations
from reached import PROBE, Watched, probed
from rich.console import Console
from rich.table import Table

ROOMS = ("core", "objectives", "samplers", "likelihood", "guidance", "energies", "experiment")
#: what is loaded once, and not for each mutant again
PRELOADED = ("torch", "numpy", "hypothesis", "pydantic", "typer", "PIL.Image", "matplotlib.pyplot", "safetensors.torch")
#: seconds of tests that are tried first, and cases of one test function among them
QUICK, CASES = 12.0, 3
#: a mutant may take so many times what its tests take by themselves, and so many seconds more, of this machine's work;
#: of time by the clock so many times that, since others may be at work here
PATIENCE, AT_LEAST, CLOCK = 3.0, 20.0, 6.0


@dataclass(frozen=True)
class Bench:
    """Where the program and its tests are.

    Attributes:
        source: the folder of the package, as it is imported: src/ornstein.
        tests: the folder of its tests.
        kept: where the copies and the results are kept.
        rooms: what is changed, files or folders in `source`.
    """

    source: Path
    tests: Path
    kept: Path
    rooms: Sequence[str] = ROOMS

    @property
    def copy(self) -> Path:
        return self.kept / "src" / self.source.name

    @property
    def probed(self) -> Path:
        return self.kept / "probed" / self.source.name

    def texts(self) -> dict[str, str]:
        """The program, file by file."""
        files = [path for room in self.rooms for path in sorted((self.source / room).rglob("*.py"))]
        files += [self.source / room for room in self.rooms if room.endswith(".py")]
        return {path.relative_to(self.source).as_posix(): path.read_text("utf-8") for path in files}


@dataclass(frozen=True)
class Case:
    """One that passes by itself: its name for pytest and how long it takes, in seconds."""

    name: str
    seconds: float

    @property
    def function(self) -> str:
        return self.name.split("[")[0]

    @property
    def file(self) -> str:
        return self.name.split("::")[0]


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant.

    Attributes:
        key: its mutation.
        kind: of it.
        fate: "killed", "survived" or "timeout", which counts as killed.
        by: the test that failed first, or "".
        tried: how many tests ran for it at most, of so many that reach it: `reach`.
        reach: see `tried`.
        seconds: it took.
        source: digest of the file that it changes, and `tests` of those that reach it, as they were.
    """

    key: str
    kind: str
    fate: str
    by: str
    tried: int
    reach: int
    seconds: float
    source: str = ""
    tests: str = ""


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


class _Chosen:
    """A plugin: runs these tests in this order, and says what failed."""

    def __init__(self, names: Sequence[str], says: Path) -> None:
        self.place = {name: k for k, name in enumerate(names)}
        self.says = says

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.place), key=lambda i: self.place[i.nodeid])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.says.write_text(report.nodeid, "utf-8")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.says.write_text(f"{report.nodeid}, as it is read", "utf-8")


def apart(work: Callable[[], int], seconds: float, log: Path) -> int | None:
    """The exit code of work done in a process forked from this one, so that what it loads is gone; None: no end.

    Its seconds are those of a processor, of each process that it starts as well.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(seconds), math.ceil(seconds) + 5))
        code = 70
        try:
            said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            code = work()
        except BaseException:  # whatever it is, it must not go on as the parent
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        over = time.monotonic() + CLOCK * seconds
        while time.monotonic() < over:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return None if code in (-signal.SIGXCPU, -signal.SIGKILL) else code
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):  # what the tests started
            os.killpg(child, signal.SIGKILL)


def _pytest(package: Path, arguments: list[str], plugin: object) -> int:
    """Tests of the package that lies here, in this process."""
    sys.path.insert(0, str(package.parent))
    os.environ["PYTHONPATH"] = str(package.parent)
    return int(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *arguments], plugins=[plugin]))


def watch(bench: Bench, file: Path) -> None:
    """Run one test file on the copy with probes and keep what its tests reach."""
    told, place = bench.kept / f"{file.stem}.told", bench.kept / f"{file.stem}.json"
    told.unlink(missing_ok=True)

    def work() -> int:
        os.environ["REACHED_TOLD"], plugin = str(told), Watched()
        exec(PROBE, {})  # as python does by itself in the processes that the tests start
        code = _pytest(bench.probed, [str(file)], plugin)
        plugin.keep(told, place)
        return code

    ended = apart(work, 3600, bench.kept / f"{file.stem}.log")
    if not place.exists():
        print(f"{file.name} ended with {ended} and is left out: see {bench.kept / file.stem}.log", flush=True)
        place.write_text('{"seconds": {}, "reached": {}}', "utf-8")


class Reach:
    """Which tests reach which mutation of the sample."""

    def __init__(self, bench: Bench, sample: Sequence[Mutation]) -> None:
        self.tests: dict[str, Case] = {}
        self.known: dict[str, set[str]] = defaultdict(set)
        for place in bench.kept.glob("test_*.json"):
            told = json.loads(place.read_text("utf-8"))
            self.tests |= {name: Case(name, taken) for name, taken in told["seconds"].items()}
            for number, names in told["reached"].items():
                self.known[sample[int(number)].key] |= set(names)
        self.sizes = Counter(case.file for case in self.tests.values())

    def of(self, mutation: Mutation) -> list[Case]:
        """The tests that reach it; of what runs once, as the file is imported, all that reach a function there."""
        return [self.tests[name] for name in sorted(self.known[mutation.key])]


def in_turn(tests: Sequence[Case], sizes: Mapping[str, int]) -> list[list[Case]]:
    """What to try first, then and last, each file by file: of the file that is most about it, of all files, the rest.

    That file is the one of whose tests the largest share is among these, where one of few tests counts for less. Of
    each test function a few cases, the quick ones, come before the others.

    Args:
        tests: those that reach a mutation.
        sizes: how many tests each file has.
    """
    home = max(sizes, key=lambda file: sum(test.file == file for test in tests) / (sizes[file] + 10))
    parts, left = [], list(tests)
    for among in ([test for test in tests if test.file == home], tests):
        part = _few([test for test in among if test in left])
        parts.append(_by_file(part))
        left = [test for test in left if test not in part]
    return [*parts, _by_file(left)]


def _few(tests: Sequence[Case]) -> set[Case]:
    """The quickest cases of each function, as far as there is time."""
    functions: dict[str, list[Case]] = defaultdict(list)
    for test in sorted(tests, key=lambda test: test.seconds):
        functions[test.function].append(test)
    few = [case for cases in functions.values() for case in cases[:CASES]]
    taken: set[Case] = set()
    spent = 0.0
    for case in sorted(few, key=lambda case: case.seconds):
        spent += case.seconds
        if taken and spent > QUICK:
            break
        taken.add(case)
    return taken


def _by_file(tests: Iterable[Case]) -> list[Case]:
    """The files whose tests are quick first, so that what a file sets up is set up once."""
    files: dict[str, list[Case]] = defaultdict(list)
    for test in tests:
        files[test.file].append(test)
    inside = [sorted(found, key=lambda test: test.seconds) for found in files.values()]
    return [test for found in sorted(inside, key=lambda found: sum(t.seconds for t in found)) for test in found]


def judge(
    bench: Bench, mutation: Mutation, source: str, tests: Sequence[Case], sizes: Mapping[str, int], limit: float
) -> Verdict:
    """Make the change, run the tests that reach it until one fails, take it back.

    Args:
        bench: where.
        mutation: the change.
        source: the file that it changes, as it is.
        tests: that reach it, and `sizes`, how many tests each file has.
        limit: seconds of tests, quick ones first; what takes longer is not tried.
    """
    place, began, tried = bench.copy / mutation.file, time.monotonic(), 0
    says, log = bench.kept / "failed", bench.kept / "mutant.log"
    fate, by = "survived", ""
    place.write_text(mutation.applied(source), "utf-8")
    for compiled in (place.parent / "__pycache__").glob(f"{place.stem}.*"):
        compiled.unlink()
    try:
        for part in in_turn(tests, sizes):
            chosen, spent = [], 0.0
            for test in part:
                if spent + test.seconds <= limit:
                    chosen.append(test)
                    spent += test.seconds
            if not chosen:
                continue
            tried += len(chosen)
            says.unlink(missing_ok=True)
            files = list(dict.fromkeys(test.file for test in chosen))
            plugin = _Chosen([test.name for test in chosen], says)
            code = apart(lambda: _pytest(bench.copy, ["-x", *files], plugin), PATIENCE * spent + AT_LEAST, log)  # noqa: B023
            if code not in (0, 5):
                fate = "timeout" if code is None else "killed"
                by = says.read_text("utf-8") if says.exists() else f"pytest ended with {code}"
                break
    finally:
        place.write_text(source, "utf-8")
    taken = round(time.monotonic() - began, 1)
    return Verdict(mutation.key, mutation.kind, fate, by, tried, len(tests), taken)


def prepare(bench: Bench, sample: Sequence[Mutation], preloaded: Sequence[str]) -> None:
    """A copy to change, another with probes, both compiled, and what each test file reaches of the sample."""
    bench.kept.mkdir(parents=True, exist_ok=True)
    for copy in (bench.copy, bench.probed):
        shutil.rmtree(copy.parent, ignore_errors=True)
        shutil.copytree(bench.source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in bench.texts().items():
        here = {mutation: k for k, mutation in enumerate(sample) if mutation.file == name}
        (bench.probed / name).write_text(probed(text, here), "utf-8")
    (bench.probed.parent / "sitecustomize.py").write_text(PROBE, "utf-8")
    compileall.compile_dir(bench.kept, quiet=2)
    for name in preloaded:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    package = [path.read_text("utf-8") for path in sorted(bench.probed.parent.rglob("*.py"))]
    files = sorted(bench.tests.glob("test_*.py"))
    for place in bench.kept.glob("test_*.json"):
        if place.stem not in {file.stem for file in files}:
            place.unlink()
    for file in files:
        told, mark = bench.kept / f"{file.stem}.json", bench.kept / f"{file.stem}.of"
        now = digest(*package, file.read_text("utf-8"))
        if not (told.exists() and mark.exists() and mark.read_text("utf-8") == now):
            print(f"{file.name}: what do its tests reach?", flush=True)
            told.unlink(missing_ok=True)
            mark.write_text(now, "utf-8")
            watch(bench, file)


def reasons(named: Path) -> dict[str, str]:
    """Key -> why it may survive, of tests/mutants.yaml: reasons, each with the mutations that it excuses."""
    told = yaml.safe_load(named.read_text("utf-8")) if named.exists() else None
    return {key: each["why"] for each in told or [] for key in each["mutations"]}


def survey(bench: Bench, sample: Sequence[Mutation], limit: float) -> Iterator[Verdict]:
    """The verdict on each, those known before as they were, each kept as it is found."""
    kept, texts, reach = bench.kept / "verdicts.jsonl", bench.texts(), Reach(bench, sample)
    lines = kept.read_text("utf-8").splitlines() if kept.exists() else []
    known = {verdict.key: verdict for verdict in (Verdict(**json.loads(line)) for line in lines)}
    for mutation in sample:
        source, before = texts[mutation.file], known.get(mutation.key)
        reached = reach.of(mutation)
        files = sorted({case.file for case in reached})
        now = digest(*(Path(file).read_text("utf-8") for file in files))
        same = before is not None and before.source == digest(source)
        if not same or (before and before.fate == "survived" and before.tests != now):
            verdict = judge(bench, mutation, source, reached, reach.sizes, limit)
            verdict = dataclasses.replace(verdict, source=digest(source), tests=now)
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(dataclasses.asdict(verdict)) + "\n")
            known[mutation.key] = verdict
        yield known[mutation.key]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--source", type=Path, default=here.parent / "src" / "ornstein")
    parser.add_argument("--tests", type=Path, default=here)
    parser.add_argument("--kept", type=Path, default=here.parent / "build" / "mutants")
    parser.add_argument("--named", type=Path, default=here / "mutants.yaml")
    parser.add_argument("--rooms", nargs="+", default=ROOMS)
    parser.add_argument("--preload", nargs="*", default=PRELOADED, help="modules to load once")
    parser.add_argument("--count", type=int, default=210)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=900, help="seconds of tests for one mutant")
    parser.add_argument("--bar", type=float, default=0.05, help="share of survivors without a reason that is too much")
    told = parser.parse_args()
    bench = Bench(told.source.resolve(), told.tests.resolve(), told.kept.resolve(), told.rooms)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so what was started ends as well
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(bench.kept / "hypothesis")
    os.chdir(bench.tests.parent)  # from where pytest names the tests
    texts = bench.texts()
    every = {file: mutations(text, file) for file, text in texts.items()}
    lines = {file: lines_of_code(text) for file, text in texts.items() if every[file]}
    sample = drawn({file: every[file] for file in lines}, lines, told.count, told.seed)
    sample.sort(key=lambda one: digest(one.key))  # so that each room's first verdicts come early
    prepare(bench, sample, told.preload)
    excused, out = reasons(told.named), Console()
    table = Table("file", "mutants", "killed", "named", "survived")
    found: dict[str, list[Verdict]] = defaultdict(list)
    for k, verdict in enumerate(survey(bench, sample, told.limit), 1):
        found[sample[k - 1].file].append(verdict)
        print(f"{k}/{len(sample)} {verdict.fate} {verdict.key[:150]!r} {verdict.seconds:g} s {verdict.by}", flush=True)
    left = []
    for file, verdicts in sorted(found.items()):
        alive = [verdict for verdict in verdicts if verdict.fate == "survived"]
        unnamed = [verdict for verdict in alive if verdict.key not in excused]
        left += unnamed
        counts = (len(verdicts), len(verdicts) - len(alive), len(alive) - len(unnamed), len(unnamed))
        table.add_row(file, *map(str, counts))
    out.print(table)
    for verdict in left:
        print(f"survived: {verdict.key} ({verdict.tried} of {verdict.reach} tests that reach it)")
    share = len(left) / max(1, len(sample))
    print(f"seed {told.seed}: {len(sample)} mutants, {len(left)} survived without a reason, {share:.1%}")
    sys.exit(share >= told.bar)


if __name__ == "__main__":
    main()
