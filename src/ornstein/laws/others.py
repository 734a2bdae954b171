"""Laws of grids, data sets and metrics."""

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ornstein.core.process import Process
from ornstein.data import Source
from ornstein.errors import InputError
from ornstein.laws.broken import hold, near
from ornstein.laws.oracles import Louder, different
from ornstein.metrics import Metric

# ------------------------------------------------------------------------------------------------------- grids

#: (process, steps, sigma_data) -> times
Grid = Callable[[Process, int, float], Tensor]


def falls_to_the_data(grid: Grid) -> None:
    """n steps are n + 1 float64 times that fall strictly to 0 from within the clock, on every process that it takes."""
    walked = 0
    for process in different().values():
        for n in (1, 2, 3, 10, 53, process.chain or 100):
            try:
                t = grid(process, n, 1.0)
            except InputError:
                continue
            walked += 1
            what = f"{n} steps on {process}"
            hold(t.shape == (n + 1,), f"{what} have times of shape {tuple(t.shape)}; it must be ({n + 1},).")
            hold(t.dtype == torch.float64, f"{what} have times of {t.dtype}; they must be float64.")
            hold((t.diff() < 0).all(), f"{what} do not fall strictly.")
            hold(t[-1] == 0.0, f"{what} end at t = {float(t[-1]):.3g}; it must be 0.")
            top = process.t_max
            hold(0 < t[0] <= top, f"{what} start at t = {float(t[0]):.6g}; it must be at most {top:.6g}.")
    hold(walked > 0, "it refuses every process.")


def is_the_same_in_other_units(grid: Grid) -> None:
    """With c times the noise, for data with c times the sigma_data, it has the same levels."""
    for process in different().values():
        for n in (1, 2, 5, 20, process.chain or 50):
            try:
                plain = grid(process, n, 1.0)
            except InputError:
                continue
            for scale in (0.37, 5.3):  # not powers of two, which scale without rounding
                found = grid(Louder(process, scale), n, scale)
                near(f"{n} steps on {process} with {scale} times the noise", found, plain, rtol=1e-9, atol=1e-12)


# -------------------------------------------------------------------------------------------------------- data


def is_a_frozen_description(source: Source) -> None:
    """It is a frozen dataclass, so that a file of names and numbers can describe it."""
    parameters = getattr(type(source), "__dataclass_params__", None)
    hold(parameters is not None and parameters.frozen, f"{type(source).__name__} is not a frozen dataclass.")


def loads_the_same_every_time(source: Source) -> None:
    """Loaded twice it has the same content, and it draws nothing from the global random state."""
    before = torch.get_rng_state()
    first, again = source.load().fingerprint(), source.load().fingerprint()
    hold(first == again, "loaded twice, it has different content.")
    hold(torch.equal(before, torch.get_rng_state()), "loading it draws from torch's global random state.")


def goes_to_model_space_and_back(source: Source) -> None:
    """Its transform gives finite values of moderate size, and its inverse gives the data back."""
    dataset = source.load()
    for part in (dataset.train[:64], dataset.test[:64]):
        x = dataset.transform.forward(part)
        hold(x.dtype == torch.float32, f"model space holds {x.dtype}; it must be float32.")
        hold(x.shape == part.shape, f"shape {tuple(part.shape)} becomes {tuple(x.shape)} in model space.")
        hold(x.isfinite().all(), "some values are not finite in model space.")
        back, values = dataset.transform.inverse(x).double(), part.double()
        scale = float(values.abs().max()) or 1.0
        near("a value that went to model space and back", back, values, rtol=1e-5, atol=1e-5 * scale)
    sigma = dataset.sigma_data
    hold(0.05 < sigma < 20, f"the standard deviation in model space is {sigma:.3g}; about 1 suits every network.")


def gives_batches_by_step_and_seed(source: Source) -> None:
    """A batch depends on step and seed alone, and has a row of the condition and a valid label for each example."""
    dataset = source.load()
    size = min(16, len(dataset.train))
    (x, condition), (same, _), (other, _) = (dataset.batch(3, size, seed) for seed in (0, 0, 1))
    hold(torch.equal(x, same), "the same step and seed give another batch.")
    hold(x.shape == (size, *dataset.shape), f"a batch has shape {tuple(x.shape)}.")
    hold(len(dataset.train) < 32 or not torch.equal(x, other), "another seed gives the same batch.")
    for name, part in condition.parts.items():
        hold(len(part) == size, f"the condition's part {name!r} has {len(part)} rows for {size} examples.")
    labels = condition.parts.get("label")
    if labels is not None:
        top = len(dataset.classes)
        hold(((labels >= -1) & (labels < top)).all(), f"a label is outside -1 (none) to {top - 1}.")


# ----------------------------------------------------------------------------------------------------- metrics


def _points(seed: int, *shape: int, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def is_a_function_of_its_generator(metric: Metric) -> None:
    """The same number for the same generator, flattened or not; the global random state does not change."""
    x, y, state = _points(0, 60, 2, 3, 4), _points(1, 50, 2, 3, 4), torch.get_rng_state()

    def measured(x: Tensor, y: Tensor) -> float:
        return metric(x, y, torch.Generator().manual_seed(1))

    value = measured(x, y)
    hold(isinstance(value, float) and math.isfinite(value), f"it gives {value!r}; it must be a finite float.")
    again = measured(x.reshape(60, 24), y.reshape(50, 24))
    hold(value == again, f"it gives {value:.9g} for arrays and {again:.9g} for the same flattened.")
    hold(torch.equal(state, torch.get_rng_state()), "it draws from torch's global random state, not its generator.")


def ranks_a_shift_as_worse(metric: Metric) -> None:
    """Points of another distribution score worse than points of the same: higher, or lower if `better` is "higher"."""
    if metric.fixed == "train":
        return  # it compares with the training set, but not for similarity
    y = _points(0, 300, 3)
    good, bad = (metric(_points(1, 200, 3, mean=m), y, torch.Generator().manual_seed(2)) for m in (0.0, 1.5))
    worse = bad > good if metric.better == "lower" else bad < good
    hold(worse, f"unshifted points score {good:.4g}, shifted ones {bad:.4g}; {metric.better} is declared better.")


def refuses_what_is_no_set_of_points(metric: Metric) -> None:
    """Integers, NaN, different shapes and single points raise an `InputError`."""
    good = torch.zeros(9, 2)
    for what, x, y in (
        ("integers", good.to(torch.uint8), good),
        ("NaN", good, good + math.nan),
        ("points of two shapes", good, torch.zeros(9, 3)),
        ("a single point", good[:1], good),
    ):
        try:
            value = metric(x, y, torch.Generator().manual_seed(0))
        except InputError:
            continue
        hold(False, f"it gives {value!r} for {what}; it must raise an InputError.")


def is_a_frozen_metric(metric: Metric) -> None:
    """It is a frozen dataclass, whose `better` is "lower" or "higher"."""
    frozen = dataclasses.is_dataclass(metric) and type(metric).__dataclass_params__.frozen
    hold(frozen, f"{type(metric).__name__} is not a frozen dataclass.")
    hold(metric.better in ("lower", "higher"), f"better={metric.better!r}; it must be 'lower' or 'higher'.")


def _named(*laws: Callable[..., None]) -> dict[str, Callable[..., None]]:
    return {law.__name__.replace("_", "-"): law for law in laws}


GRID_LAWS = _named(falls_to_the_data, is_the_same_in_other_units)
DATA_LAWS = _named(
    is_a_frozen_description, loads_the_same_every_time, goes_to_model_space_and_back, gives_batches_by_step_and_seed
)
METRIC_LAWS = _named(
    is_a_frozen_metric, is_a_function_of_its_generator, ranks_a_shift_as_worse, refuses_what_is_no_set_of_points
)
