"""Commands about training: `train` a run, `plan` what it will take, `info` on it, and `list` what there is."""

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ornstein import ranks
from ornstein.cli.shared import RunFolder, err, named, out
from ornstein.errors import InputError, lookup, shown

if TYPE_CHECKING:
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.folder import Lock


#: settings of data that name columns
_COLUMNS = ("types", "drop", "condition", "split", "time", "by", "columns")
#: columns of a table that are listed at the start
_MOST_SHOWN = 100


def train(  # long: half of it says what the options are
    experiment: Annotated[
        str | None,
        typer.Argument(
            help="Data of your own: a table, an array, a folder or zip of pictures; a preset (`ornstein list presets`) "
            "or an experiment's YAML file.",
            show_default=False,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...",
            help="Changes to it: process=vp, process.beta_max=15, training.steps=3000, data.path=photos, ...; "
            "preset=NAME lays a method over it (`ornstein list methods`).",
            show_default=False,
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", "-o", help="The run folder to make.", show_default="runs/NAME")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option("--resume", metavar="RUN", help="Continue this run from its last checkpoint, bit for bit."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="RUN", help="Start from the weights of a finished run, and keep its types and scales."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the complete experiment and do not train.")] = False,
) -> None:
    """Train a model, or continue training one.

    Ctrl-C saves and says how to continue. Pictures of samples appear in RUN/samples while it trains.

    Examples:

        ornstein train customers.csv

        ornstein train photos/

        ornstein train weather.csv data=series

        ornstein train digits

        ornstein train mnist process=flow predicts=velocity objective=flow --out runs/flow

        ornstein train digits preset=ncsnv2

        ornstein train customers.csv training.minutes=30

        ornstein train houses.csv.gz data.types.zip=category data.drop=id --out runs/houses

        ornstein train --from runs/customers new.csv

        ornstein train --from runs/digits preset=experts --out runs/experts

        ornstein train --resume runs/digits training.steps=6000
    """
    asked, place = _asked(experiment, list(overrides or []), folder, resume, start)
    if show:
        if resume is None and any(asked.data.get(name) for name in _COLUMNS):
            from ornstein.experiment.build import load_data

            with err.status("reading the data"):
                load_data(asked)  # what is said of columns is held against them, as in training
        out.print(asked.to_yaml(), end="")
        return
    from ornstein.experiment.folder import holding

    with holding(place, "training") if not ranks.rank() else nullcontext() as lock:
        if resume is not None:  # another may have gone on with it meanwhile
            asked, place = _asked(experiment, list(overrides or []), folder, resume, start)
        train_into(asked, place, resume is not None, lock)


def train_into(asked: "Experiment", place: Path, resume: bool, lock: "Lock | None") -> None:
    from ornstein.experiment.budget import in_time
    from ornstein.experiment.build import load_data
    from ornstein.experiment.folder import may_begin, newest_step, read_folder
    from ornstein.experiment.train import Diverged, train

    if not (resume or ranks.rank()):
        may_begin(place)
    ranks.join(asked.training.cpu)
    with err.status("reading the data"), ranks.in_turn():
        data = load_data(asked, *(read_folder(place)[1], place) if resume else ())
    out.print("[bold]data[/]     ", end="")
    out.print(data.describe(), markup=False, soft_wrap=True)
    if not resume:
        with err.status("measuring how many steps the time allows"):
            asked = in_time(asked, data)
    _chosen(asked, data)
    moment = None
    try:
        with _training_bar(asked.training.steps) as report:
            for moment in train(asked, place, data, resume=resume, lock=lock):
                report(moment)
    except KeyboardInterrupt:
        saved = newest_step(place)
        if saved is None:
            out.print("\nStopped before anything was saved.")
        else:
            out.print(
                f"\nStopped; saved up to step {saved:,}. Go on with: [bold]ornstein train --resume {named(place)}[/]"
            )
        raise typer.Exit(130) from None
    except Diverged as error:
        err.print("[bold red]ornstein:[/] ", end="")
        err.print(shown(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    _done(asked, place, moment)


def _chosen(asked: "Experiment", data: Any) -> None:
    """Print what the columns of a table were taken for, and what was chosen for somebody's own data, with reasons."""
    from rich.table import Table

    if data.columns:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for head in ("column", "taken for", "because"):
            table.add_column(head, overflow="fold")
        for column in data.columns[:_MOST_SHOWN]:
            table.add_row(*map(named, (column.name, column.describe(), column.reason)))
        out.print(table)
        if (more := len(data.columns) - _MOST_SHOWN) > 0:
            out.print(f"[dim]and {more:,} more columns, which run.yaml lists[/]")
        # a name with a dot in it would be taken for two
        plain = [column.name for column in data.columns if column.name.strip() and not set(".=") & set(column.name)]
        word = shlex.quote(f"data.types.{shown((plain or ['NAME'])[0])}=category")
        out.print(f"[dim]Not what you mean? Say so: {named(word)} (docs/tables.md)[/]")
    for key, why in asked.reasons.items():
        out.print(f"[bold]chosen[/]   {named(key)}: {named(why)}")


def _asked(
    experiment: str | None, changes: list[str], folder: Path | None, resume: Path | None, start: Path | None
) -> tuple["Experiment", Path]:
    """The experiment that is to be trained, and where."""
    if resume is not None and experiment is not None:
        if "=" not in experiment:
            raise InputError(
                f"experiment='{shown(experiment)}' does not go with --resume, which goes on with that of "
                f"{shown(resume)}; changes to it look like training.steps=3000."
            )
        changes.insert(0, experiment)  # without a preset, the first word is a change
    if resume is not None and start is not None:
        raise InputError(f"--from {shown(start)} begins a new run, which does not go with --resume {shown(resume)}.")
    if resume is None and experiment is None:
        raise InputError(
            "name data, a preset or a YAML file to train, or a run with --resume; see `ornstein list presets`."
        )
    if resume is not None and folder is not None:
        raise InputError(f"--out={shown(folder)} does not go with --resume, which goes on in {shown(resume)}.")

    from ornstein.experiment.config import Experiment
    from ornstein.experiment.folder import read_experiment, read_folder
    from ornstein.experiment.own import stem
    from ornstein.experiment.start import going_on

    if resume is not None:
        read_folder(resume)
        return read_experiment(resume, changes), resume
    assert experiment is not None
    if start is not None and "=" in experiment:  # the first change, to a run on the same data
        return going_on(start, None, [experiment, *changes]), folder or Path("runs") / f"{start.name}-on"
    if start is not None:
        return going_on(start, experiment, changes), folder or Path("runs") / stem(experiment)
    return Experiment.read(experiment, changes), folder or Path("runs") / stem(experiment)


def _done(asked: "Experiment", place: Path, moment: Any) -> None:
    from ornstein.experiment.learner import LEARNERS

    then = LEARNERS[asked.learner["name"]].then.format(run=place)  # type: ignore[index]
    newest = "" if moment.picture is None else f"; its newest picture: {named(moment.picture)}"
    out.print(f"[bold]done[/]     {moment.progress.step:,} steps in {named(place)}{newest}")
    if moment.note:
        out.print(f"         {named(moment.note)}")
    out.print(f"         [dim]{named(then)}[/]")


@contextmanager
def _training_bar(steps: int) -> Iterator[Callable[[Any], None]]:
    """Shows each `Moment`: as a bar on a terminal, and as a line at each measurement, which a log file gets too."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from torch import get_num_threads

    threads = get_num_threads()
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task("training", total=steps, figures="")

        def report(moment: Any) -> None:
            p = moment.progress
            if moment.note:
                bar.update(task, figures=named(moment.note))
                return
            for warning in p.warnings:
                bar.console.print(f"[yellow]warning[/]  {named(warning)}")
            left = time.strftime("%H:%M:%S", time.gmtime(p.remaining)) if p.rate > 0 else "--"
            few = f" on {p.threads} of {threads} threads" if p.threads < threads else ""
            rate = f"{p.rate:5.1f} steps/s{few}"
            bar.update(task, completed=p.step, figures=f"loss {p.loss:.4f}  {rate.strip()}  {left} left")
            if moment.held_out is not None:
                bar.console.print(
                    f"step {p.step:>7,}  loss {p.loss:.4f}  held-out {moment.held_out:.4f}  "
                    f"{rate}  {left} left" + ("" if moment.picture is None else f"  {named(moment.picture)}"),
                    soft_wrap=True,
                )

        yield report


def plan(
    experiment: Annotated[
        str, typer.Argument(help="A preset (`ornstein list presets`), or an experiment's YAML file.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes to it, as for `ornstein train`.")
    ] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="NxGPU", help="8xH100, L4, ...", show_default="this machine, measured")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu: measure this machine's CPU even if it has a GPU.")] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="Share of the GPUs' peak rate that is reached.", show_default="0.4, assumed")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Price of one GPU, or of this machine, for an hour.")] = None,
) -> None:
    """Say what a training run will take before it is run: arithmetic, time, memory by part, disk, money.

    Without --gpus, a few real steps of this network are timed here. For GPUs, published peak rates are used.

    Examples:

        ornstein plan digits

        ornstein plan mnist net.channels=128 training.precision=bfloat16 --gpus 8xH100 --price 2.5
    """
    if device not in (None, "cpu"):
        raise InputError(f"device={device!r} must be cpu; for GPUs that are not at hand give --gpus, as in 8xH100.")
    if gpus is not None and device is not None:
        raise InputError(f"--device {device} measures this machine, which does not go with --gpus {gpus}.")
    if gpus is None and utilisation is not None:
        raise InputError(f"--utilisation {utilisation:g} is of published rates: it needs --gpus.")
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.plan import UTILISATION, plan

    asked = Experiment.read(experiment, [*(overrides or []), *(["training.cpu=true"] if device else [])])
    share = UTILISATION if utilisation is None else utilisation
    with err.status("counting" if gpus else "counting and measuring"):
        result = plan(asked, gpus, utilisation=share, price=price)
    out.print(result.text(), markup=False, soft_wrap=True)


def info(
    run: RunFolder,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Accept the files as they are now, after you changed one on purpose; a run whose files differ from "
            "what training wrote is refused until then.",
        ),
    ] = False,
) -> None:
    """Say what a run is: its data, parts and size, how far it is trained, and what its folder contains."""
    if accept:
        from ornstein.experiment.folder import accept as taken

        changed = taken(run)
        out.print(f"[bold]accepted[/]     {named(', '.join(changed)) or 'nothing differed'}")
    from ornstein.experiment.report import describe

    for name, value in describe(run).items():
        out.print(f"[bold]{name:<12}[/] ", end="")
        out.print(value, markup=False, soft_wrap=True)


def list_(
    table: Annotated[
        str | None,
        typer.Argument(
            help="processes, steppers, grids, objectives, guidance, distillations, readings, nets, data, metrics, "
            "presets or methods.",
            show_default="all of them",
        ),
    ] = None,
) -> None:
    """List what there is of a kind, with one line on each."""
    from ornstein.experiment.catalogue import tables

    known = tables()
    shown_tables = known if table is None else {table: lookup(known, table, "table")}
    for noun, rows in shown_tables.items():
        if table is None:
            out.print(f"[bold underline]{noun}[/]")
        width = max(map(len, rows))
        for name, line in rows.items():
            out.print(f"[bold]{name:<{width}}[/]  {named(line)}", soft_wrap=True)
        if table is None:
            out.print()
