"""Commands that measure a run, or fit how it is drawn from: `evaluate`, `doctor`, `loglik` and `tune`."""

from pathlib import Path
from typing import Annotated

import typer

from ornstein.cli.shared import Average, Force, OwnStepper, OwnSteps, RunFolder, bar, claim, named, out, stages
from ornstein.cli.tables import score_rows
from ornstein.cli.texts import say_bits
from ornstein.errors import InputError, lookup, shown


def evaluate(
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", "--count", help="How many samples to judge by.")] = 1000,
    seed: Annotated[int, typer.Option(help="Random seed of the samples and of the measures.")] = 0,
    steps: OwnSteps = None,
    stepper: OwnStepper = None,
    ema: Average = None,
    page: Annotated[
        bool, typer.Option("--page/--no-page", help="Also write report.html, with the doctor's findings.")
    ] = True,
    likelihood: Annotated[
        int | None,
        typer.Option(
            help="For how many held-out examples the page gives the likelihood; 0 for none.",
            show_default="200 of a table's rows or of up to 8 numbers, else 0",
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--inception",
            help="The weights of FID's network, pt_inception-2015-12-05-6726825d.pth: pictures get a true FID and KID, "
            "of as many samples as -n says.",
        ),
    ] = None,
) -> None:
    """Measure a run against held-out data, each figure beside what real data score.

    Writes RUN/evaluation.json, a picture of samples beside their nearest training examples, and RUN/report.html, which
    has everything on one page, works without a network and explains it to readers who do not know the field.
    """
    from ornstein.experiment.evaluate import evaluate
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema).drawing()
    with stages() as (stage, progress):
        result = evaluate(
            opened, n=n, seed=seed, steps=steps, stepper=stepper, progress=progress, stage=stage, page=page,
            likelihood=likelihood, weights=weights,
        )  # fmt: skip
    if result is None:
        return
    out.print(result.text(), markup=False, soft_wrap=True)
    # of a codec there is no page
    written = ["evaluation.json", "evaluation.png", *["report.html"] * (page and opened.learner.draws)]
    out.print("\n" + ", ".join(f"[bold]{named(run / name)}[/]" for name in written))


def doctor(
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", "--count", help="How many samples to judge by.")] = 500,
    seed: Annotated[int, typer.Option(help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was measured, as JSON.")] = False,
) -> None:
    """Say what is wrong with a run, and what to change. The run itself is not changed.

    Exit code 0 if nothing is wrong, 1 if there are findings, 2 if there is no such run.

    Each figure stands beside that of a healthy run; docs/doctor.md explains each.
    """
    import json

    from ornstein.experiment.doctor import doctor

    with stages() as (stage, _):
        found = doctor(run, n=n, seed=seed, stage=stage)
    if as_json:
        print(json.dumps(found.to_dict(), indent=2))
    else:
        out.print(found.text(), markup=False, soft_wrap=True)
    if found.findings:
        raise typer.Exit(1)


def loglik(  # long: half of it says what the options are
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="A table, .npy or .npz, an image or a folder of them; or train or test, the run's own."
        ),
    ],
    path: Annotated[Path, typer.Option("--out", "-o", help="The .csv to write; a histogram goes beside it, .png.")],
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Score only the first so many.", show_default="all")
    ] = None,
    reference: Annotated[
        int | None,
        typer.Option(
            help="How many held-out samples to compare with; 0 for none.", show_default="200; 0 if DATA is test"
        ),
    ] = None,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="Score log p(x given its own label or other condition), not log p(x).")
    ] = False,
    draws: Annotated[int, typer.Option(help="Dequantisation draws of digital data; more tighten the bound.")] = 1,
    trace: Annotated[
        str, typer.Option(help="exact, hutchinson or hutch++; auto: exact up to 128 dimensions, then hutchinson.")
    ] = "auto",
    probes: Annotated[int, typer.Option(help="Backward passes a step, if the trace is estimated.")] = 8,
    seed: Annotated[int, typer.Option(help="Random seed of probes, dequantisation and a table's orders.")] = 0,
    explain: Annotated[
        bool, typer.Option("--explain", help="For rows of a table, name the columns that make each unusual.")
    ] = False,
    ema: Average = None,
    force: Force = False,
) -> None:
    """Score data by their exact log-likelihood under a run, and rank them: rank 1 is the least likely.

    The CSV has a line for each example: log-likelihood in nats, bits per dimension, standard error, rank.

    Examples:

        ornstein loglik runs/moons test --out scores.csv

        ornstein loglik runs/photos suspects --out suspects.csv

        ornstein loglik runs/adult people.csv --out odd.csv --explain
    """
    if path.suffix != ".csv":
        raise InputError(f"out='{shown(path)}' must end in .csv.")

    from ornstein.experiment.cells import draws_rows
    from ornstein.experiment.loglik import loglik
    from ornstein.experiment.run import Run
    from ornstein.experiment.texts import draws_tokens

    opened = Run.load(run, ema=ema)
    table = draws_rows(opened)
    claim(run, [path] if table or draws_tokens(opened) else [path, path.with_suffix(".png")], force, [Path(data)])
    if table:
        usual = {"--conditional": conditional, "--reference": reference, "--draws": draws != 1,
                 "--trace": trace != "auto", "--probes": probes != 8}  # fmt: skip
        if said := next((name for name, value in usual.items() if value not in (None, False)), None):
            raise InputError(f"{said} is of likelihoods by the probability-flow ODE; rows of a table have a bound.")
        score_rows(opened, data, count, seed, explain, path)
        return
    if draws_tokens(opened):
        say_bits(opened, data, count, seed, draws, path)
        return
    if explain:
        raise InputError(f"--explain names columns of a table; {shown(run)} was trained on {opened.kind}s.")
    if reference is None:
        reference = 0 if data == "test" else 200  # held-out data are not compared with themselves
    with bar("scoring") as progress:
        scores = loglik(
            opened, data, count=count, reference=reference, conditional=conditional, draws=draws, trace=trace,
            probes=probes, seed=seed, progress=progress,
        )  # fmt: skip
    picture = scores.save(path)
    out.print(scores.text(), markup=False, soft_wrap=True)
    out.print(f"\n[bold]{named(path)}[/], [bold]{named(picture)}[/]")


def tune(
    run: RunFolder,
    steps: Annotated[int, typer.Option(help="Steps of the grid, or network calls of the solver, to fit.")],
    criterion: Annotated[
        str,
        typer.Option(help="bound: the grid with the best variational bound. endpoint: the nearest solver."),
    ] = "bound",
    count: Annotated[
        int | None,
        typer.Option(help="Trajectories to fit a solver to.", show_default="64 to 8192, by the run's dimensions"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of fitting a solver; more reduce its error.", show_default="240")
    ] = None,
    ema: Average = None,
) -> None:
    """Fit a time grid, or a solver, to a run, and keep it in the run's folder.

    By the bound: the best few of many levels (Watson et al. 2021), for
    `ornstein sample RUN --stepper ddpm --grid tuned --steps K`.

    By the endpoint: levels and weights of a multistep solver, fitted to where the run's own trajectories end, for
    `ornstein sample RUN --grid tuned --steps K`. It is judged on fresh noise, and kept if it beats the run's default.

    Examples:

        ornstein tune runs/digits --steps 10

        ornstein tune runs/digits --steps 5 --criterion endpoint
    """
    lookup({"bound": None, "endpoint": None}, criterion, "criterion")
    fitting = {name: value for name, value in (("count", count), ("rounds", rounds)) if value is not None}
    if criterion != "endpoint" and fitting:
        raise InputError("--count and --rounds are of fitting a solver: they go with --criterion endpoint.")
    from ornstein.experiment.run import Run
    from ornstein.experiment.tune import tune, tune_endpoint

    if criterion == "endpoint":
        with bar("fitting") as progress:
            found = tune_endpoint(Run.load(run, ema=ema), steps, **fitting, progress=progress)
        out.print(
            f"mean distance to the end of a 1,000-step solve, {steps} network calls, fresh noise "
            f"(samples lie {found.scale:.3g} from their mean)"
        )
        out.print(f"  [bold]{'tuned':<12} {found.tuned}[/]")
        out.print(f"  {'default':<12} {found.default}")
        for name, distance in sorted(found.others.items(), key=lambda item: item[1].value):
            out.print(f"  {name:<12} {distance}")
        out.print(f"kept in {named(run / 'tuned.yaml')}: ornstein sample {named(run)} --grid tuned --steps {steps}")
        return
    with stages() as (stage, _):
        result = tune(Run.load(run, ema=ema), steps, stage=stage)
    out.print("variational bound on held-out data, bits per dimension (lower is better)")
    out.print(f"  [bold]tuned      {result.bits:.4f}[/]")
    for name, bits in sorted(result.even.items(), key=lambda item: item[1]):
        out.print(f"  {name:<10} {bits:.4f}")
    out.print(
        f"kept in {named(run / 'tuned.yaml')}: ornstein sample {named(run)} --stepper ddpm --grid tuned --steps {steps}"
    )
