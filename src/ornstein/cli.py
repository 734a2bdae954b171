"""The command line: eleven verbs over `ornstein.experiment`.

Nothing here knows how anything is done; it turns words into calls and results into lines. torch is loaded when a verb
runs, not before, so that `--help` answers at once.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from ornstein import ranks
from ornstein.errors import InputError, lookup

app = typer.Typer(
    name="ornstein",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Diffusion and score-based generative models: train one on your data, draw from it, measure it.\n\n"
    "A first run: `ornstein train digits`, then `ornstein sample runs/digits -n 64`.",
)
out, err = Console(highlight=False, soft_wrap=True), Console(stderr=True, highlight=False, soft_wrap=True)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A folder that `ornstein train` wrote, as runs/digits.")]


@app.command()
def train(
    experiment: Annotated[
        str | None,
        typer.Argument(help="A preset (`ornstein list presets`), or an experiment's YAML file.", show_default=False),
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
        typer.Option("--resume", metavar="RUN", help="Go on with this run, from its last checkpoint, bit for bit."),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the complete experiment and do not train.")] = False,
) -> None:
    """Train a model, or go on training one.

    Ctrl-C saves and says how to go on. Pictures of samples appear in RUN/samples while it trains.

    Examples:

        ornstein train digits

        ornstein train mnist process=flow predicts=velocity objective=flow --out runs/flow

        ornstein train digits preset=ncsnv2

        ornstein train images data.path=photos data.size=64,64 --out runs/photos

        ornstein train --resume runs/digits training.steps=6000
    """
    changes = list(overrides or [])
    if resume is not None and experiment is not None:
        changes.insert(0, experiment)  # without a preset, the first word is a change
    if resume is None and experiment is None:
        raise InputError("name a preset or a YAML file to train, or a run with --resume; see `ornstein list presets`.")
    if resume is not None and folder is not None:
        raise InputError(f"--out={folder} does not go with --resume, which goes on in {resume}.")

    from ornstein.experiment.build import load_data
    from ornstein.experiment.config import Experiment
    from ornstein.experiment.run import Diverged, read_folder, train

    if resume is not None:
        read_folder(resume)
        asked = Experiment.read(resume / "experiment.yaml", changes)
        place = resume
    else:
        assert experiment is not None
        asked = Experiment.read(experiment, changes)
        place = folder or Path("runs") / Path(experiment).stem
    if show:
        out.print(asked.to_yaml(), end="")
        return
    if resume is None and (place / "run.yaml").exists():
        raise InputError(f"out={str(place)!r} holds a run already; go on with --resume {place}, or name another --out.")
    ranks.join(asked.training.cpu)
    with err.status("reading the data"), ranks.in_turn():
        data = load_data(asked)
    out.print("[bold]data[/]     ", end="")
    out.print(data.describe(), markup=False, soft_wrap=True)
    step = 0
    try:
        with _training_bar(asked.training.steps) as report:
            for moment in train(asked, place, data, resume=resume is not None):
                step = moment.progress.step
                report(moment)
    except KeyboardInterrupt:
        out.print(f"\nStopped and saved. Go on with: [bold]ornstein train --resume {place}[/]")
        raise typer.Exit(130) from None
    except Diverged as error:
        err.print(f"[bold red]ornstein:[/] {error}")
        raise typer.Exit(1) from None
    if asked.objective["name"] == "classifier":
        out.print(f"[bold]done[/]     {step:,} steps in {place}; how much it tells: {place / 'accuracy-by-noise.png'}")
        out.print(f"         [dim]ornstein sample RUN --guidance classifier --guide {place}[/]")
        return
    out.print(f"[bold]done[/]     {step:,} steps in {place}; its pictures are in {place / 'samples'}")
    out.print(f"         [dim]ornstein sample {place} -n 64     ornstein evaluate {place}[/]")


@app.command()
def sample(
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", "--count", help="How many samples.")] = 64,
    label: Annotated[
        str | None, typer.Option(help="Draw this class: its number or its name.", show_default="all in turn")
    ] = None,
    stepper: Annotated[
        str | None, typer.Option(help="How to step (`ornstein list steppers`).", show_default="the run's own")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--with", metavar="KEY=VALUE", help="An option of the stepper, as eta=0.5.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps.", show_default="the run's own")] = None,
    grid: Annotated[
        str | None, typer.Option(help="Where to step (`ornstein list grids`).", show_default="the run's own")
    ] = None,
    seed: Annotated[int, typer.Option(help="Sample i of a seed is the same whatever else is drawn.")] = 0,
    ema: Annotated[
        float | None,
        typer.Option(help="Average of the weights, by length; 0 for the weights.", show_default="the run's own"),
    ] = None,
    path: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A .png picture, or .npz arrays.", show_default="RUN/samples/drawn.png"),
    ] = None,
    film: Annotated[bool, typer.Option("--film", help="Also write the denoising as an animation, .gif.")] = False,
    guidance: Annotated[
        str | None,
        typer.Option(
            help="classifier-free, autoguidance or classifier.",
            show_default="classifier-free with --scale, otherwise none",
        ),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="How strongly to guide: 1 is the plain conditional model, 0 the unconditional.")
    ] = None,
    interval: Annotated[
        str | None, typer.Option(metavar="LOW,HIGH", help="Guide only where sigma/alpha lies between these.")
    ] = None,
    rescale: Annotated[
        float | None,
        typer.Option(help="In [0, 1]: how far guided answers get their spread back; against harsh contrast."),
    ] = None,
    guide: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The weaker run of autoguidance, or the classifier.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of the network: auto, float32, bfloat16 or float16.", show_default="the run's own"),
    ] = None,
) -> None:
    """Draw samples from a run.

    Examples:

        ornstein sample runs/digits -n 64 --label 3 --stepper heun --steps 20 --seed 0 --out threes.png

        ornstein sample runs/digits -n 1000 --out samples.npz

        ornstein sample runs/digits -n 16 --stepper ddim --with eta=1 --film

        ornstein sample runs/digits -n 64 --scale 3 --interval 0.3,5
    """
    path = path or run / "samples" / "drawn.png"
    if path.suffix not in (".png", ".npz"):
        raise InputError(f"out={str(path)!r} must end in .png (a picture) or .npz (arrays).")
    if n < 1:
        raise InputError(f"n={n} must be at least 1.")

    import torch

    from ornstein.experiment.run import Run, stepper_named

    opened = Run.load(run, ema=ema).drawing(precision)
    if option and stepper is None:
        raise InputError(f"--with {option[0]} needs --stepper, whose option it is.")
    chosen = stepper_named(stepper, **_options(option)) if stepper else None
    labels = opened.labels(label, n) if label is not None else opened.every_class(n)
    if guidance or scale is not None:
        from ornstein.experiment.guide import guided

        other = Run.load(guide, ema=ema).drawing(precision) if guide else None
        opened = guided(
            opened,
            guidance or "classifier-free",
            other,
            scale=scale,
            interval=_interval(interval),
            rescale=rescale,
        )
    elif interval or guide or rescale is not None:
        raise InputError(
            "--interval, --rescale and --guide say how to guide: name it with --guidance, or give a --scale."
        )
    began = time.perf_counter()
    with _bar("drawing") as progress:
        how: dict[str, Any] = {"label": labels, "seed": seed, "stepper": chosen, "steps": steps, "grid": grid}
        drawn = opened.draw(n, **how, progress=progress, together=True)
    if ranks.rank():
        return
    seconds = time.perf_counter() - began
    if not bool(torch.isfinite(drawn).all()):
        raise InputError("the samples are not finite: the model has diverged, or the stepper needs more steps.")
    if path.suffix == ".npz":
        opened.save_arrays(drawn, labels, seed, path)
    else:
        opened.picture(drawn, path, opened.class_columns(labels))
    out.print(f"{n} samples in {seconds:.1f} s: [bold]{path}[/]")
    if film:
        few = min(n, 36)
        frames = [
            state.x.cpu()
            for state in opened.trajectory(
                few, label=None if labels is None else labels[:few], seed=seed, stepper=chosen, steps=steps, grid=grid
            )
        ]
        opened.film(frames, path.with_suffix(".gif"))
        out.print(f"{len(frames)} frames: [bold]{path.with_suffix('.gif')}[/]")


InputFile = Annotated[
    Path, typer.Option("--input", "-i", help="A picture, or .npy in the data's own units; NaN marks what is missing.")
]
Draws = Annotated[int, typer.Option("-n", "--count", help="How many answers to draw for each input.")]
Method = Annotated[str, typer.Option(help="pigdm, moment-matching, dps, replacement or repaint: see docs/guidance.md.")]
Known = Annotated[str | None, typer.Option("--label", help="The class it is known to be of: number or name.")]
Noise = Annotated[
    float, typer.Option(help="Standard deviation of its noise: pictures span -1 to 1, tables have deviation 1.")
]
Seed = Annotated[int, typer.Option(help="Draw i of a seed is the same whatever else is drawn.")]
Steps = Annotated[int, typer.Option(help="How many steps.")]
OwnStepper = Annotated[
    str | None, typer.Option(help="How to step (`ornstein list steppers`).", show_default="the run's own")
]
GuidedStepper = Annotated[str, typer.Option(help="How to step (`ornstein list steppers`).")]
Average = Annotated[
    float | None,
    typer.Option(help="Average of the weights, by length; 0 for the weights.", show_default="the run's own"),
]


@app.command()
def inpaint(
    run: RunFolder,
    given: InputFile,
    mask: Annotated[
        Path | None, typer.Option(help="A picture, white where to fill in.", show_default="NaN in the input")
    ] = None,
    n: Draws = 8,
    method: Method = "pigdm",
    noise: Noise = 0.0,
    label: Known = None,
    seed: Seed = 0,
    steps: Steps = 50,
    stepper: GuidedStepper = "ddpm",
    ema: Average = None,
    path: Annotated[Path, typer.Option("--out", "-o", help="A .png picture; arrays go beside it.")] = Path(
        "filled.png"
    ),
) -> None:
    """Fill in what is missing: of a picture under a mask, or of the rows of an array where they are NaN.

    Several answers are drawn, with their mean and standard deviation. What is known comes back exactly.

    Examples:

        ornstein inpaint runs/digits --input seven.png --mask hole.png --out filled.png

        ornstein inpaint runs/table --input rows-with-nan.npy -n 100
    """
    _png(path)
    from ornstein.experiment import restore as home
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    values = home.read_input(opened, given)
    home.check_shape(opened, values, given)
    known = values.isfinite()
    if mask is not None:
        known = known & home.read_mask(opened, mask)
    with _bar("drawing") as progress:
        found = home.inpaint(
            opened, values, known, draws=n, method=method, noise=noise, label=label, seed=seed, steps=steps,
            stepper=stepper, progress=progress,
        )  # fmt: skip
    _restored(home.save(opened, found, path), path, len(values), n)


@app.command()
def restore(
    run: RunFolder,
    operator: Annotated[str, typer.Option(help="What it has suffered: blur or downsample.")],
    given: InputFile,
    option: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="KEY=VALUE", help="width=1.5 pixels, of the blur; by=2, of downsampling."),
    ] = None,
    clean: Annotated[
        bool, typer.Option("--clean", help="The input is whole: damage it first, and show it beside.")
    ] = False,
    n: Draws = 8,
    method: Method = "pigdm",
    noise: Noise = 0.01,
    label: Known = None,
    seed: Seed = 0,
    steps: Steps = 50,
    stepper: GuidedStepper = "ddpm",
    ema: Average = None,
    path: Annotated[Path, typer.Option("--out", "-o", help="A .png picture; arrays go beside it.")] = Path(
        "restored.png"
    ),
) -> None:
    """Undo a blur or a loss of resolution: several answers, with their mean and standard deviation.

    Examples:

        ornstein restore runs/mnist --operator downsample --with by=4 --input small.png

        ornstein restore runs/mnist --operator blur --with width=2 --input sharp.png --clean
    """
    _png(path)
    from ornstein.experiment import restore as home
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    with _bar("drawing") as progress:
        found = home.restore(
            opened, home.damage(operator, **_options(option)), home.read_input(opened, given), clean=clean, draws=n,
            method=method, noise=noise, label=label, seed=seed, steps=steps, stepper=stepper, progress=progress,
        )  # fmt: skip
    _restored(home.save(opened, found, path), path, len(found.samples), n)


@app.command()
def interpolate(
    run: RunFolder,
    first: Annotated[
        str, typer.Option("--from", help="A held-out example's number, a picture, or .npy of one sample.")
    ],
    last: Annotated[str, typer.Option("--to", help="The same, for the other end.")],
    n: Annotated[int, typer.Option("-n", "--count", help="How many, with both ends.")] = 9,
    label: Known = None,
    steps: Steps = 50,
    stepper: OwnStepper = None,
    ema: Average = None,
    path: Annotated[Path, typer.Option("--out", "-o", help="A .png picture; arrays go beside it.")] = Path(
        "between.png"
    ),
) -> None:
    """Turn one datum into another through the noise that both come from.

    Both are encoded by the probability-flow ODE; what lies between on the sphere is decoded. The picture has the inputs
    at its ends.

    Examples:

        ornstein interpolate runs/digits --from 3 --to 17

        ornstein interpolate runs/mnist --from a.png --to b.png -n 16
    """
    _png(path)
    from ornstein.experiment import interpolate as home
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    ends = home.read_ends(opened, first, last)
    with err.status("encoding and decoding"):
        between = home.interpolate(opened, *ends, n, label=label, steps=steps, stepper=stepper)
    beside = home.save(opened, *ends, between, path)
    out.print(f"{n} on the way: [bold]{path}[/], [bold]{beside}[/]")


@app.command()
def evaluate(
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", "--count", help="How many samples to judge by.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the samples and of the measures.")] = 0,
    steps: Annotated[int | None, typer.Option(help="How many steps.", show_default="the run's own")] = None,
    stepper: Annotated[
        str | None, typer.Option(help="How to step (`ornstein list steppers`).", show_default="the run's own")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Average of the weights, by length; 0 for the weights.", show_default="the run's own"),
    ] = None,
) -> None:
    """Measure a run against held-out data, each figure beside what real data score.

    Writes RUN/evaluation.json and a picture of samples beside their nearest training examples.
    """
    from ornstein.experiment.evaluate import evaluate
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema).drawing()
    with _stages() as (stage, progress):
        result = evaluate(opened, n=n, seed=seed, steps=steps, stepper=stepper, progress=progress, stage=stage)
    if result is None:
        return
    out.print(result.text(), markup=False, soft_wrap=True)
    out.print(f"\n[bold]{run / 'evaluation.json'}[/], [bold]{run / 'evaluation.png'}[/]")


@app.command()
def loglik(
    run: RunFolder,
    data: Annotated[
        str,
        typer.Argument(
            metavar="DATA", help="An .npy or .npz file, an image or a folder of them; or train or test, the run's own."
        ),
    ],
    path: Annotated[Path, typer.Option("--out", "-o", help="The .csv to write; a histogram goes beside it, .png.")],
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Only the first so many.", show_default="all")
    ] = None,
    reference: Annotated[
        int | None,
        typer.Option(
            help="How many held-out samples to compare with; 0 for none.", show_default="200; 0 if DATA is test"
        ),
    ] = None,
    conditional: Annotated[
        bool, typer.Option("--conditional", help="log p(x given its own label), not log p(x).")
    ] = False,
    draws: Annotated[int, typer.Option(help="Dequantisation draws of digital data; more tighten the bound.")] = 1,
    trace: Annotated[
        str, typer.Option(help="exact, hutchinson or hutch++; auto: exact up to 128 dimensions, then hutchinson.")
    ] = "auto",
    probes: Annotated[int, typer.Option(help="Backward passes a step, where the trace is estimated.")] = 8,
    seed: Annotated[int, typer.Option(help="Of probes and dequantisation.")] = 0,
    ema: Annotated[
        float | None,
        typer.Option(help="Average of the weights, by length; 0 for the weights.", show_default="the run's own"),
    ] = None,
) -> None:
    """Score data by their exact log-likelihood under a run, and rank them: rank 1 is the least likely.

    The CSV has a line for each sample: log-likelihood in nats, bits per dimension, standard error, rank.

    Examples:

        ornstein loglik runs/moons test --out scores.csv

        ornstein loglik runs/photos suspects --out suspects.csv
    """
    if path.suffix != ".csv":
        raise InputError(f"out={str(path)!r} must end in .csv.")

    from ornstein.experiment.loglik import loglik
    from ornstein.experiment.run import Run

    opened = Run.load(run, ema=ema)
    if reference is None:
        reference = 0 if data == "test" else 200  # held-out data are not compared with themselves
    with _bar("scoring") as progress:
        scores = loglik(
            opened,
            data,
            count=count,
            reference=reference,
            conditional=conditional,
            draws=draws,
            trace=trace,
            probes=probes,
            seed=seed,
            progress=progress,
        )
    picture = scores.save(path)
    out.print(scores.text(), markup=False, soft_wrap=True)
    out.print(f"\n[bold]{path}[/], [bold]{picture}[/]")


@app.command()
def tune(
    run: RunFolder,
    steps: Annotated[int, typer.Option(help="Steps of the grid, or network calls of the solver, to fit.")],
    criterion: Annotated[
        str,
        typer.Option(help="bound: the grid that is best by the variational bound. endpoint: a solver that lands near."),
    ] = "bound",
    count: Annotated[
        int | None,
        typer.Option(help="Trajectories to fit a solver to.", show_default="64 to 8192, by the run's dimensions"),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of fitting a solver: more come nearer.", show_default="240")
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(help="Average of the weights, by length; 0 for the weights.", show_default="the run's own"),
    ] = None,
) -> None:
    """Fit a time grid, or a solver, to a run; it is kept there.

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
    if criterion == "bound" and fitting:
        raise InputError("--count and --rounds are of fitting a solver: they go with --criterion endpoint.")
    from ornstein.experiment.run import Run
    from ornstein.experiment.tune import tune, tune_endpoint

    if criterion == "endpoint":
        with _bar("fitting") as progress:
            found = tune_endpoint(Run.load(run, ema=ema), steps, **fitting, progress=progress)
        out.print(
            f"mean distance to the end of a 1,000-step solve, {steps} network calls, fresh noise "
            f"(samples lie {found.scale:.3g} from their mean)"
        )
        out.print(f"  [bold]{'tuned':<12} {found.tuned}[/]")
        out.print(f"  {'default':<12} {found.default}")
        for name, distance in sorted(found.others.items(), key=lambda item: item[1].value):
            out.print(f"  {name:<12} {distance}")
        out.print(f"kept in {run / 'tuned.yaml'}: ornstein sample {run} --grid tuned --steps {steps}")
        return
    with err.status("measuring the network at every level"):
        result = tune(Run.load(run, ema=ema), steps)
    out.print("variational bound on held-out data, bits per dimension (lower is better)")
    out.print(f"  [bold]tuned      {result.bits:.4f}[/]")
    for name, bits in sorted(result.even.items(), key=lambda item: item[1]):
        out.print(f"  {name:<10} {bits:.4f}")
    out.print(f"kept in {run / 'tuned.yaml'}: ornstein sample {run} --stepper ddpm --grid tuned --steps {steps}")


@app.command()
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
    device: Annotated[
        str | None, typer.Option(help="cpu: measure this machine's CPU even where a GPU is at hand.")
    ] = None,
    utilisation: Annotated[
        float | None, typer.Option(help="Share of the GPUs' peak rate that is reached.", show_default="0.4, assumed")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Of one GPU, or this machine, for an hour.")] = None,
) -> None:
    """Say what a training run will take before it is run: arithmetic, time, memory by part, disk, money.

    Without --gpus, a few real steps of this network are timed here. For GPUs, published peak rates are taken.

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


@app.command()
def info(run: RunFolder) -> None:
    """Say what a run is: its data, parts, size, how far it is trained, and what lies in its folder."""
    from ornstein.experiment.run import describe

    for name, value in describe(run).items():
        out.print(f"[bold]{name:<12}[/] ", end="")
        out.print(value, markup=False, soft_wrap=True)


@app.command("list")
def list_(
    table: Annotated[
        str,
        typer.Argument(
            help="processes, steppers, grids, objectives, guidance, readings, nets, data, metrics, presets or methods."
        ),
    ],
) -> None:
    """List what there is of a thing, with one line on each."""
    from ornstein.experiment.tables import tables

    rows = lookup(tables(), table, "table")
    width = max(map(len, rows))
    for name, line in rows.items():
        out.print(f"[bold]{name:<{width}}[/]  {line}", soft_wrap=True)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if ranks.rank() and context.invoked_subcommand not in ("train", "sample", "evaluate"):
        raise typer.Exit  # the first process does alone what is not shared
    if version:
        from ornstein._version import __version__

        out.print(f"ornstein {__version__}")
        raise typer.Exit


def _options(pairs: list[str] | None) -> dict[str, Any]:
    import yaml

    options = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals:
            raise InputError(f"--with {pair!r} must look like eta=0.5.")
        options[name.strip()] = yaml.safe_load(text)
    return options


def _png(path: Path) -> None:
    if path.suffix != ".png":
        raise InputError(f"out={str(path)!r} must end in .png; the arrays go beside it.")


def _restored(beside: Path, path: Path, rows: int, n: int) -> None:
    out.print(f"{n} answers for {rows} input{'s' * (rows > 1)}: [bold]{path}[/], [bold]{beside}[/]")


def _interval(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"--interval {text!r} must be two noise ratios, as 0.3,5.") from None
    return low, high


@contextmanager
def _bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, silence elsewhere; called with (done, in all)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _stages() -> Iterator[tuple[Callable[[str], None], Callable[[int, int], None]]]:
    """Says what is being done, `stage(what)`, with a bar where its length is known, `progress(done, in all)`.

    On a terminal one line, which each stage takes over from the last; elsewhere a line a stage, so that a log tells
    what a long wait is for.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def stage(what: str) -> None:
            if err.is_terminal:
                bar.reset(task, total=None, description=what)
            else:
                err.print(f"[dim]{what}[/]")

        yield stage, lambda done, total: bar.update(task, completed=done, total=total)


@contextmanager
def _training_bar(steps: int) -> Iterator[Callable[[Any], None]]:
    """Shows each `Moment`: as a bar on a terminal, and as a line at each measurement, which a log file gets too."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"))
    with Progress(*columns, console=out, disable=not out.is_terminal) as bar:
        task = bar.add_task("training", total=steps, figures="")

        def report(moment: Any) -> None:
            p = moment.progress
            for warning in p.warnings:
                bar.console.print(f"[yellow]warning[/]  {warning}")
            left = time.strftime("%H:%M:%S", time.gmtime(p.remaining)) if p.rate > 0 else "--"
            bar.update(task, completed=p.step, figures=f"loss {p.loss:.4f}  {p.rate:.1f} steps/s  {left} left")
            if moment.held_out is not None:
                bar.console.print(
                    f"step {p.step:>7,}  loss {p.loss:.4f}  held-out {moment.held_out:.4f}  "
                    f"{p.rate:5.1f} steps/s  {left} left  {moment.picture}",
                    soft_wrap=True,
                )

        yield report


def main() -> None:
    """The entry point: bad input is one sentence and exit code 2."""
    with ranks.one_voice():
        try:
            app()
        except InputError as error:
            err.print("[bold red]ornstein:[/] ", end="")
            err.print(str(error), markup=False, soft_wrap=True)
            sys.exit(2)
        except KeyboardInterrupt:
            err.print("\nstopped")
            sys.exit(130)


if __name__ == "__main__":
    main()
