"""The command that draws from a run: `sample`. `ornstein.cli.restoring` draws what goes with a given sample."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ornstein import ranks
from ornstein.cli.shared import (
    Average,
    Force,
    Given,
    OwnStepper,
    OwnSteps,
    RunFolder,
    bar,
    claim,
    claim_folder,
    known_parts,
    named,
    noise_ratios,
    options,
    out,
)
from ornstein.cli.tables import sample_rows
from ornstein.cli.texts import fill_blanks, say_texts
from ornstein.errors import InputError, shown


def sample(  # long: half of it says what the options are
    run: RunFolder,
    n: Annotated[int, typer.Option("-n", "--count", help="How many samples.")] = 64,
    label: Annotated[
        str | None, typer.Option(help="Draw this class: its number or its name.", show_default="all in turn")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(metavar="WORDS", help='Draw this, as "red heart", from a run with captions; if several, in turn.'),
    ] = None,
    given: Given = None,
    where: Annotated[
        str | None,
        typer.Option(metavar="COLUMN=VALUE,...", help='Only rows with: "income=>50K, age=30..40, sex=A|B, debt>=7".'),
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help='A text to fill in, a "_" for each character: "The ____ of the". For pictures of few levels an .npy '
            "file of one, NaN where to draw.",
        ),
    ] = None,
    stepper: OwnStepper = None,
    option: Annotated[
        list[str] | None, typer.Option("--with", metavar="KEY=VALUE", help="An option of the stepper, as eta=0.5.")
    ] = None,
    steps: OwnSteps = None,
    grid: Annotated[
        str | None, typer.Option(help="Where to step (`ornstein list grids`).", show_default="the run's own")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed; sample i of a seed is the same whatever else is drawn.")] = 0,
    ema: Average = None,
    path: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A .png picture of all, .npz arrays, .csv rows of a table or series; or, without a suffix, a new "
            "folder of pictures.",
            show_default="RUN/samples/drawn.png or .csv; for a packaged model, RUN-drawn",
        ),
    ] = None,
    force: Force = False,
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
        typer.Option(help="In [0, 1]: how far to restore the spread of guided answers, against harsh contrast."),
    ] = None,
    guide: Annotated[
        Path | None, typer.Option(metavar="RUN", help="The weaker run of autoguidance, or the classifier.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="Of the network: auto, float32, bfloat16 or float16.", show_default="the run's own"),
    ] = None,
    augmentation: Annotated[
        float | None,
        typer.Option(help="Noise on the coarse picture that a cascade refines.", show_default="the run's own"),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(
            metavar="PICTURE", help="Variations of a file, or of a held-out example (its number), by a prior."
        ),
    ] = None,
    length: Annotated[
        int | None,
        typer.Option(help="Steps of each series: may be longer or shorter than trained.", show_default="the run's own"),
    ] = None,
) -> None:
    """Draw samples from a run.

    Examples:

        ornstein sample runs/digits -n 64 --label 3 --stepper heun --steps 20 --seed 0 --out threes.png

        ornstein sample runs/digits -n 1000 --out samples.npz

        ornstein sample runs/photos -n 1000 --out new

        ornstein sample runs/digits -n 16 --stepper ddim --with eta=1 --film

        ornstein sample runs/digits -n 64 --scale 3 --interval 0.3,5

        ornstein sample runs/emoji -n 8 --text "red heart" --text "blue apple" --scale 3

        ornstein sample runs/prior -n 8 --like 17

        ornstein sample runs/weather -n 16 --length 672 --out months.csv

        ornstein sample runs/adult -n 10000 --where "income=>50K, age=30..40" --out rows.csv

        ornstein sample runs/text -n 4 --fill "The ____ of the"
    """
    if n < 1:
        raise InputError(f"n={n} must be at least 1.")

    import torch

    from ornstein.experiment.build import stepper_with
    from ornstein.experiment.cells import draws_rows
    from ornstein.experiment.packaged import is_packaged
    from ornstein.experiment.pictures import are_files, numbered, save_each
    from ornstein.experiment.rows import TABLES, is_table
    from ornstein.experiment.run import Run
    from ornstein.experiment.stream import in_turn
    from ornstein.experiment.texts import draws_tokens

    if path is not None and not (is_table(path) or path.suffix in ("", ".png", ".npz", ".txt")):
        raise InputError(
            f"out='{shown(path)}' must end in .png (a picture), .npz (arrays), .csv (rows of a table or of series) or "
            ".txt (texts), or be a folder of pictures to make."
        )
    opened = Run.load(run, ema=ema).drawing(precision)
    if augmentation is not None:
        from ornstein.experiment.guide import augmented

        opened = augmented(opened, augmentation)
    if like is not None:
        from ornstein.experiment.variations import liked

        opened = liked(opened, like)
    table = draws_rows(opened)
    writes = bool(opened.transform.letters)
    ours = is_packaged(opened.folder)
    usual = f"{opened.folder.name}-drawn" if ours else str(run / "samples" / "drawn")
    path = path or Path(f"{usual}.{'csv' if table else 'txt' if writes else 'png'}")
    single = are_files(opened.kind, opened.shape)
    dates = opened.about["data"].get("series") is not None
    ends = (".png", ".npz", *[".txt"] * writes, *[".csv"] * dates, *[""] * single)
    if not (is_table(path) if table else path.suffix in ends):
        raise InputError(
            f"out='{shown(path)}' must end in "
            + (
                f"{', '.join(TABLES)}: {shown(run)} draws rows."
                if table
                else f"{'.txt (texts), ' * writes}{'.csv (rows with dates), ' * dates}.png (a picture) or .npz (arrays)"
                f"{', or be a folder of pictures to make' * single}."
            )
        )
    if fill is not None and not draws_tokens(opened):
        raise InputError(
            f"--fill {shown(fill)!r} is of text and of pictures of few levels; {shown(run)} was trained on "
            f"{opened.kind}s, for which there is inpaint or impute."
        )
    if where is not None and not table:
        raise InputError(
            f"--where {shown(where)!r} is of a table's columns; {shown(run)} was trained on {opened.kind}s."
        )
    if not ranks.rank():
        claim(run, [path] * bool(path.suffix) + [path.with_suffix(".gif")] * film, force)
        if not path.suffix:
            claim_folder(path, force)
    if option and stepper is None:
        raise InputError(f"--with {option[0]} needs --stepper, whose option it is.")
    chosen = stepper_with(stepper, options(option)) if stepper is not None else None
    parts = known_parts(given)
    words = in_turn(text, n) if text else None
    asked = parts or label is not None or words is not None
    if length is not None or (path.suffix == ".csv" and dates):
        from ornstein.experiment.series import long, timeline

        length = timeline(opened).window if length is None else length
        opened, condition = long(opened, n, length, opened.condition(n, label, parts, words) if asked else None)
    else:
        condition = opened.condition(n, label, parts, words) if asked or like is not None else opened.examples(n)
    if table:
        walks = {"--film": film, "--grid": grid, "--with": option, "--stepper": stepper, "--guidance": guidance,
                 "--scale": scale, "--interval": interval, "--rescale": rescale, "--guide": guide}  # fmt: skip
        if said := next((name for name, value in walks.items() if value is not None and value is not False), None):
            raise InputError(f"{said} is of Gaussian noise, and {shown(run)} draws the rows of a table; leave it out.")
        sample_rows(opened, n, condition, where, seed, steps, path)
        return
    if guidance is not None or scale is not None:
        from ornstein.experiment.guide import guided

        other = Run.load(guide, ema=ema).drawing(precision) if guide is not None else None
        mixed = {"scale": scale, "interval": noise_ratios(interval, "--interval", "0.3,5"), "rescale": rescale}
        opened = guided(opened, "classifier-free" if guidance is None else guidance, other, **mixed)
    elif interval is not None or guide is not None or rescale is not None:
        raise InputError(
            "--interval, --rescale and --guide say how to guide: name it with --guidance, or give a --scale."
        )
    if fill is not None:
        fill_blanks(opened, fill, n, condition, seed, chosen, steps, path)
        return
    how: dict[str, Any] = {"seed": seed, "stepper": chosen, "steps": steps, "grid": grid}
    began = time.perf_counter()
    with bar("drawing") as progress:
        drawn = opened.draw(n, condition=condition, **how, progress=progress, together=True)
    if ranks.rank():
        return
    seconds = time.perf_counter() - began
    if not bool(torch.isfinite(drawn).all()):
        raise InputError("the samples are not finite: the model has diverged, or the stepper needs more steps.")
    if film:  # drawn before either is written
        few = min(n, 36)
        states = opened.trajectory(few, condition=condition[:few], **how)
        frames = [state.x.cpu() for state in states]
    if path.suffix == ".csv":
        from ornstein.experiment.series_files import save_windows

        save_windows(opened, drawn, condition, path)
    elif path.suffix == ".npz":
        opened.save_arrays(drawn, condition, seed, path)
    elif path.suffix == ".txt":
        say_texts(opened.transform.texts(drawn), path)
    elif not path.suffix:
        save_each(drawn, opened.transform, path, numbered(n, condition.parts.get("label"), opened.classes))
    else:
        labels = condition.parts.get("label") if set(opened.conditions) == {"label"} else None
        columns = len(text) if text and 1 < len(text) <= min(n, 16) else opened.class_columns(labels)
        opened.picture(drawn, path, columns, start=condition.parts.get("source"))
    out.print(f"{n} samples in {seconds:.1f} s: [bold]{named(path)}[/]")
    if film:
        opened.film(frames, path.with_suffix(".gif"))
        out.print(f"{len(frames)} frames: [bold]{named(path.with_suffix('.gif'))}[/]")
