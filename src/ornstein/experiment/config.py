"""An experiment, described: one of each noun, with data and training, complete and checked before anything runs.

An experiment is a small tree of names and numbers,

    data: digits
    process: {name: vp, beta_max: 15}
    net: {name: unet, channels: 48}
    predicts: v
    objective: edm
    training: {steps: 3000}
    sampling: {stepper: "dpm++2m", steps: 30}

read from a preset or a YAML file and changed by dotted overrides (`process=cosine training.lr=1e-3`). One override
names a *method*, a preset without data that is laid over the other: `preset=ncsnv2`. Each name is an entry of a room's
table, and what may stand beside it is read off that entry's signature: so an addition to a table can be configured, is
checked and is written down in full, with nothing to add here.
"""

import inspect
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from ornstein.core import PROCESSES as CLOCKS
from ornstein.core.grids import GRIDS, MOST_STEPS
from ornstein.core.prediction import READINGS
from ornstein.data import DATA
from ornstein.energies import ENERGY_OBJECTIVES
from ornstein.errors import InputError, lookup, shown
from ornstein.experiment import plain
from ornstein.files import regular
from ornstein.guidance import NoisyCrossEntropy
from ornstein.nets import NETS
from ornstein.objectives import OBJECTIVES as SCORE_OBJECTIVES
from ornstein.samplers import DEFAULT_STEPPER, STEPPERS
from ornstein.samplers.noise_ladder import AdvisedLadder
from ornstein.training import AUTO, PRECISIONS, Training

#: raised by one when an old file can no longer be read as it is
VERSION = 1

#: what `predicts` says, beside the readings, of a network whose gradient is the score
ENERGY = "energy"
#: the objective that learns no distribution, but to tell classes apart in noise, for guidance
CLASSIFIER = "classifier"
#: samples of a picture that is drawn while training
MOST_PREVIEW = 4096
#: every process and objective that an experiment can name
PROCESSES: dict[str, Callable[..., Any]] = {**CLOCKS, "advised-ladder": AdvisedLadder}
OBJECTIVES: dict[str, Callable[..., Any]] = {
    **SCORE_OBJECTIVES,
    **ENERGY_OBJECTIVES,
    CLASSIFIER: NoisyCrossEntropy,
}
#: presets that are another preset with another data set
_ALIKE = {
    "fashion-mnist": "mnist",
    **dict.fromkeys(("moons", "swiss-roll", "eight-gaussians", "checkerboard", "pinwheel", "spirals"), "points"),
}


@dataclass(frozen=True)
class Sampling:
    """How a run draws when it is not told otherwise.

    Args:
        stepper: a name of `STEPPERS` with its options.
        steps: how many steps; None for every level of a chain, and 30 in continuous time.
        grid: a name of `GRIDS`, or None: "trailing" on a chain, the stepper's usual one in continuous time.
        ema: which average of the weights draws, one of `training.ema`; 0 for the raw weights.
        preview: how many samples each picture taken during training shows.
        precision: of the network when it draws: "float32", "bfloat16", "float16", or "auto" for the fastest by
            measurement. Likelihoods are always in float32.
    """

    stepper: dict[str, Any] = field(default_factory=lambda: {"name": DEFAULT_STEPPER})
    steps: int | None = 30
    grid: str | None = None
    ema: float = 0.05
    preview: int = 64
    precision: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stepper", choice(STEPPERS, self.stepper, "stepper"))
        if self.grid is not None:
            lookup(GRIDS, self.grid, "grid")
        lookup({AUTO: None, **PRECISIONS}, self.precision, "sampling.precision")
        for name, most in (("steps", MOST_STEPS), ("preview", MOST_PREVIEW)):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise InputError(f"sampling.{name}={value!r} must be a whole number from 1 to {most:,}.")


@dataclass(frozen=True)
class Experiment:
    """One of each noun, with data and training; made by `Experiment.read`, complete in every default.

    `data`, `process`, `net` and `objective` are dicts of a "name" and the arguments of that entry of the room's table.
    """

    data: dict[str, Any]
    process: dict[str, Any]
    net: dict[str, Any]
    objective: dict[str, Any]
    predicts: str = "v"
    training: Training = field(default_factory=Training)
    sampling: Sampling = field(default_factory=Sampling)
    version: int = VERSION

    def __post_init__(self) -> None:
        if self.version > VERSION:
            raise InputError(
                f"version={self.version} of the experiment is newer than this ornstein reads ({VERSION}); upgrade it."
            )
        for noun, table in _TABLES.items():
            object.__setattr__(self, noun, choice(table, getattr(self, noun), noun))
        lookup({**READINGS, ENERGY: None}, self.predicts, "predicts")
        ema = self.sampling.ema
        if ema and ema not in self.training.ema:
            known = ", ".join(map(str, self.training.ema)) or "none"
            raise InputError(f"sampling.ema={ema} is not tracked: training.ema has {known}; 0 takes the raw weights.")

    @staticmethod
    def read(source: "str | Path | Mapping[str, Any]", overrides: Iterable[str] = ()) -> "Experiment":
        """The experiment of a preset's name, a YAML file or a dict, with `path=value` overrides applied.

        Raises:
            InputError: anything unknown, of the wrong type or out of range, in one sentence that names it.
        """
        tree = _tree(source)
        changes = [_parted(override) for override in overrides]
        for keys, value in changes:
            if keys == ["preset"]:
                _lay_over(tree, value)
        for keys, value in changes:
            if keys != ["preset"]:
                _set(tree, keys, value)
        for noun in _TABLES:  # `process: vp` says the same as `process: {name: vp}`
            if isinstance(tree.get(noun), str):
                tree[noun] = {"name": tree[noun]}
        for name, section in (("training", Training), ("sampling", Sampling)):
            if isinstance(given := tree.get(name, {}), Mapping):
                if isinstance(given.get("stepper"), str):
                    given = {**given, "stepper": {"name": given["stepper"]}}
                tree[name] = section(**_validated(section, given, f"{name}."))
        return Experiment(**_validated(Experiment, tree, ""))

    def to_yaml(self) -> str:
        """The whole experiment, every default written out; `read` gives it back."""
        return yaml.safe_dump(json.loads(json.dumps(asdict(self))), sort_keys=False)  # tuples become lists


_TABLES: dict[str, Mapping[str, Callable[..., Any]]] = {
    "data": DATA,
    "process": PROCESSES,
    "net": NETS,
    "objective": OBJECTIVES,
}


def presets() -> dict[str, str]:
    """Every preset by name, with its description: the first comment of its file."""
    found = _described("presets")
    for name, like in _ALIKE.items():
        found[name] = f"The data set {name!r}, trained as {like!r}."
    return found


def methods() -> dict[str, str]:
    """Every method by name, with its description: a preset without data, laid over another by `preset=NAME`."""
    return _described("methods")


def key_of(name: str) -> str | None:
    """The key of an experiment that ends in this name: "training.steps" of "steps"; None where there is none."""
    if name in _TABLES or name == "predicts":
        return name
    for section, kind in (("training", Training), ("sampling", Sampling)):
        if name in kind.__dataclass_fields__:
            return f"{section}.{name}"
    return None


def choice(table: Mapping[str, Callable[..., Any]], given: "str | Mapping[str, Any]", noun: str) -> dict[str, Any]:
    """`given` (a name, or a dict with one) as a complete dict: the name and every argument of the entry."""
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping) or "name" not in given:
        raise InputError(f"{noun}={given!r} must be one of {', '.join(table)}, or a mapping with such a name.")
    arguments = dict(given)
    name = arguments.pop("name")
    return {"name": name, **_validated(lookup(table, name, noun), arguments, f"{noun}.")}


def construct(table: Mapping[str, Callable[..., Any]], chosen: Mapping[str, Any]) -> Any:
    """The object that a complete choice describes."""
    given = {key: value for key, value in chosen.items() if key != "name"}
    entry = table[chosen["name"]]
    return entry(**_validated(entry, given, f"{chosen['name']}."))


@cache
def _arguments(entry: Callable[..., Any]) -> type[BaseModel]:
    """What an entry of a table, or a section of the experiment, takes: read off its signature."""
    hints = get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(entry).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        factory = getattr(entry, "__dataclass_fields__", {}).get(name)
        if factory is not None and factory.default_factory is not MISSING:
            default = Field(default_factory=factory.default_factory)
        fields[name] = (hints[name], default)
    return create_model(f"{entry.__name__} arguments", __config__=ConfigDict(extra="forbid"), **fields)


def _validated(entry: Callable[..., Any], given: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Every argument of `entry`, those given and the defaults; or the first thing wrong in one sentence."""
    model = _arguments(entry)
    known = list(model.model_fields)
    for name in given:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise InputError(f"{prefix}{_key(name)} is not a field{hint} Known: {', '.join(known) or 'none'}.")
    try:
        found = dict(model.model_validate(dict(given)))
        for name, value in given.items():
            if not _same_kind(value, found[name]) or found[name] != found[name]:  # no field means anything by NaN
                kind = "a number" if isinstance(found[name], (int, float)) else "numbers"
                raise InputError(
                    f"{prefix}{name}={_brief(value)} is not accepted: it must be "
                    f"{'true or false' if isinstance(found[name], bool) else kind}."
                )
        return found
    except ValidationError as error:
        problem = error.errors()[0]
    if problem["type"] == "missing":
        raise InputError(f"{prefix}{problem['loc'][0]} is missing; give it as {prefix}{problem['loc'][0]}=...")
    # of a union pydantic says which of its types it tried: no part of the path
    where = [str(part) for part in problem["loc"] if not re.search(r"[^\w-]|^(str|int|float|bool)$", str(part))]
    path = prefix + ".".join(where)
    message = problem["msg"].replace("Input should be", "it must be").replace("a valid dictionary", "a mapping")
    raise InputError(f"{path}={_brief(problem['input'])} is not accepted: {message[0].lower()}{message[1:]}.")


def _brief(value: Any) -> str:
    """A value as it stands in a sentence, however long it is."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _same_kind(given: Any, taken: Any) -> bool:
    """Whether a value was taken as what it is: true is no number, 1 not true, and '12' a word."""
    if isinstance(given, (list, tuple)) and isinstance(taken, (list, tuple)):
        return all(map(_same_kind, given, taken))
    return all(isinstance(given, kind) == isinstance(taken, kind) for kind in (bool, str))


def _key(name: Any) -> str:
    """A key as it stands in a sentence: as it is if it could be one, quoted otherwise."""
    return name if isinstance(name, str) and re.fullmatch(r"[\w-]+", name) else _brief(name)


def _folder(name: str) -> Any:
    return resources.files("ornstein.experiment").joinpath(name)


def _described(folder: str) -> dict[str, str]:
    files = sorted(_folder(folder).iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".yaml"): file.read_text("utf-8").splitlines()[0].removeprefix("# ") for file in files
    }


def _tree(source: "str | Path | Mapping[str, Any]") -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    name = str(source)
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = regular(name, "experiment", "an experiment's YAML file or a preset's name")
        return _mapping(plain.read(path), shown(name))
    if name in methods():
        raise InputError(f"preset={name!r} is a method, which needs data: ornstein train digits preset={name}.")
    lookup(presets(), name, "preset")
    file = _folder("presets").joinpath(f"{_ALIKE.get(name, name)}.yaml")
    tree = _mapping(plain.parsed(file.read_text("utf-8"), name), name)
    if name in _ALIKE:
        tree["data"] = {"name": name}
    return tree


def _mapping(tree: Any, name: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InputError(f"{name} must hold a mapping of data, process, net, objective, ...; it holds {_brief(tree)}.")
    return tree


def _lay_over(tree: dict[str, Any], method: Any) -> None:
    """Put a method over a tree: its nouns replace, its sections change what they name."""
    if isinstance(method, str) and method in presets():
        raise InputError(f"preset={method!r} has data of its own; name it first, as in: ornstein train {method}.")
    lookup(methods(), method, "preset")
    changes = plain.parsed(_folder("methods").joinpath(f"{method}.yaml").read_text("utf-8"), method)
    # what holds for data whose preset has a U-Net, or a perceptron, alone
    kinds = {"unet": changes.pop("images", {}), "mlp": changes.pop("points", {})}
    net = tree.get("net")
    net = net.get("name") if isinstance(net, Mapping) else net
    for layer in (changes, kinds.get(str(net), {})):
        for key, value in layer.items():
            if key not in ("training", "sampling"):
                tree[key] = value
            elif isinstance(before := tree.get(key, {}), Mapping):  # anything else is refused later
                tree[key] = {**before, **value}


def _parted(override: str) -> tuple[list[str], Any]:
    """`a.b=value` as its path and its value."""
    path, equals, text = override.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys):
        raise InputError(f"override={shown(override)!r} must look like training.steps=3000 or process=vp.")
    try:
        value = plain.parsed(text, override)
    except InputError:
        return keys, text  # no YAML, but perhaps the name of a file
    # nor is "photos #2" the word photos with a remark
    return keys, text if isinstance(value, str) and text[:1] not in ("'", '"') else value


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    node = tree
    for key in keys[:-1]:
        below = node.get(key)
        if isinstance(below, str):
            below = {"name": below}
        node[key] = dict(below) if isinstance(below, Mapping) else {}
        node = node[key]
    node[keys[-1]] = value
