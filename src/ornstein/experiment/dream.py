"""A picture, a drawing or a solid made by optimising it under a run: see `ornstein.distill.score`.

The run's network is called and never changed. What is optimised is rendered into pictures like those that the run was
trained on: pixels, strokes, or a volume seen from all round. A volume needs a run that was told from where each of its
pictures was seen, by a part of the condition named "view": cosine and sine of the azimuth.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ornstein.core.condition import Condition
from ornstein.core.drive import sample_seeds
from ornstein.distill.renderers import RENDERERS, VIEW, Renderer
from ornstein.distill.score import SCORE_DISTILLATIONS, dream
from ornstein.errors import InputError, lookup
from ornstein.experiment.arguments import choice_with, construct
from ornstein.experiment.guide import guided
from ornstein.experiment.run import Run
from ornstein.files import replacing_all

#: number of moments of the work in a film
_FILMED = 40


@dataclass(frozen=True, eq=False)
class Dreamt:
    """The result of an optimisation.

    Attributes:
        renderer: the renderer of its parameters.
        parameters: what was optimised, on the CPU.
        x: (n, C, H, W), its renders in model space; a volume's are from azimuths evenly round.
        losses: (steps,), of each step, averaged over the renders.
        frames: of a film, (n, C, H, W) each: the work as it goes on, or a volume turned round.
    """

    renderer: Renderer
    parameters: dict[str, Tensor]
    x: Tensor
    losses: Tensor
    frames: list[Tensor] = field(default_factory=list)


def renderer_of(run: Run, name: str, options: Mapping[str, Any]) -> Renderer:
    """The renderer of that name, if its pictures are like those that the run was trained on.

    Raises:
        InputError: an unknown name or option; a run of something other than pictures, or of pictures that the renderer
            cannot make; for a volume, a run that was not told from where its pictures are seen.
    """
    run.must_walk("optimising what is rendered")
    made: Renderer = construct(RENDERERS, choice_with(RENDERERS, name, options, "as"))
    if run.learner.problem.shape != run.shape:
        raise InputError(f"as={name!r} renders pictures, and {run.folder} works on latents of them.")
    if made.channels and (run.kind != "image" or run.shape[0] not in made.channels):
        wanted = " or ".join(map(str, made.channels))
        shape = "x".join(map(str, run.shape))
        raise InputError(
            f"as={name!r} renders pictures of {wanted} channels; {run.folder} was trained on {run.kind}s {shape}."
        )
    if made.told:
        known = run.conditions.get(VIEW)
        if known is None or known.kind != "vector" or known.shape != (2,):
            raise InputError(
                f"as={name!r} needs a run that was told from where its pictures are seen, by a vector {VIEW!r} of "
                f"cosine and sine of the azimuth, as docs/gallery/dreamfusion.md makes one; {run.folder} was not."
            )
    return made


def dreamed(  # long: half of it says what the arguments are
    run: Run,
    name: str,
    n: int = 4,
    *,
    method: str = "annealed",
    scale: float = 1.0,
    label: Any = None,
    text: Any = None,
    condition: "Mapping[str, Any] | None" = None,
    noise: tuple[float, float] | None = None,
    steps: int = 200,
    lr: float | None = None,
    seed: int = 0,
    options: "Mapping[str, Any] | None" = None,
    film: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Dreamt:
    """Optimise something that renders into pictures until the run finds these likely.

    Args:
        run: a denoiser of pictures.
        name: what to optimise, a key of `RENDERERS`.
        n: number of pictures; for a volume, number of views of it in a step.
        method: a key of `SCORE_DISTILLATIONS`.
        scale: of classifier-free guidance; 1 for none.
        label, text, condition: what the pictures are to be; see `Run.condition`.
        noise: the least and the most noise used, as q = sigma/(alpha sigma_data); None for the method's own.
        steps: of Adam.
        lr: its rate at the start; None for one that suits the renderer.
        seed: of the initial parameters, the views and the noise.
        options: of the renderer.
        film: keep the frames of a film.
        progress: called with (steps made, steps in all).

    Raises:
        InputError: whatever `renderer_of`, `guided` and `dream` refuse; a result that is not finite.
    """
    renderer = renderer_of(run, name, options or {})
    by = lookup(SCORE_DISTILLATIONS, method, "method")(**({} if noise is None else {"noise": noise}))
    given = run.condition(n, label, condition, text)
    if renderer.told:
        given = given.without(VIEW)
    if scale != 1 and not given:
        raise InputError(f"scale={scale:g} guides to what is asked for: name it with --label, --text or --given.")
    denoiser = (guided(run, scale=scale) if scale != 1 else run).denoiser
    sample_seeds(0, seed, None, None)  # refuses an invalid seed
    dice = torch.Generator().manual_seed(seed)
    parameters = {key: value.to(denoiser.device) for key, value in renderer.begin(n, run.shape, dice).items()}
    known = run.conditions.get(VIEW)

    def render(leaves: Mapping[str, Tensor], generator: torch.Generator) -> "Tensor | tuple[Tensor, Condition]":
        rendered = renderer(leaves, generator, n, run.shape)
        if not isinstance(rendered, tuple):
            return rendered
        x, seen = rendered
        assert known is not None  # the renderer has already refused runs without a view
        told = known.standardised(seen.parts[VIEW].cpu())
        return x, Condition({VIEW: told}).to(x.device)

    every, losses, frames = math.ceil(steps / _FILMED), [], []
    lr = renderer.lr if lr is None else lr
    for moment in dream(
        denoiser, render, parameters, given.to(denoiser.device), by=by, generator=dice, steps=steps, lr=lr
    ):
        losses.append(moment.loss.mean())
        if film and (moment.step - 1) % every == 0:
            frames.append(moment.x.cpu())
        if progress is not None:
            progress(moment.step, steps)
    kept = {key: value.detach().cpu() for key, value in parameters.items()}
    with torch.no_grad():
        x = renderer.shown(kept, n, run.shape)
        frames = (renderer.turned(kept, run.shape) or [*frames, x]) if film else []
    if not bool(x.isfinite().all()):
        raise InputError(f"what was optimised is not finite: try a smaller lr than {lr:g}.")
    return Dreamt(renderer, kept, x, torch.stack(losses).cpu(), frames)


def places(path: Path, name: str, film: bool) -> list[Path]:
    """The files that `save` writes for a picture's path, the picture first.

    Raises:
        InputError: a name that is no key of `RENDERERS`.
    """
    kinds = [".npz"] + [".svg"] * lookup(RENDERERS, name, "as").vector + [".gif"] * film
    return [path, *map(path.with_suffix, kinds)]


def save(run: Run, found: Dreamt, path: Path) -> None:
    """A picture, and beside it the parameters as .npz, strokes as .svg too, and the film as .gif if there is one."""
    with replacing_all(path, path.with_suffix(".npz")) as (picture, beside):
        run.picture(found.x, picture, min(len(found.x), 8))
        with beside.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **{k: v.numpy() for k, v in found.parameters.items()})
    if found.renderer.vector:
        with replacing_all(path.with_suffix(".svg")) as (drawing,):
            drawing.write_text(found.renderer.svg(found.parameters), encoding="utf-8")
    if found.frames:
        run.film(found.frames, path.with_suffix(".gif"))
