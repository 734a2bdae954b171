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
names a *method*, a preset without data that is laid over the other: `preset=ncsnv2`. Each name is an entry of a table,
and its settings are read from the entry's signature: so an addition to a table can be configured, is
checked and is written out in full, with no change here.
"""

import json
import math
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ornstein.bridge.learner import NAMED_PATHS
from ornstein.core import PROCESSES as CLOCKS
from ornstein.core.grids import GRIDS, MOST_STEPS
from ornstein.data import DATA
from ornstein.discrete import KERNELS
from ornstein.errors import InputError, lookup, shown
from ornstein.experiment import ends, own, plain
from ornstein.experiment.arguments import brief, choice, construct, validated
from ornstein.experiment.learner import LEARNERS, nets_of, steppers_of
from ornstein.experiment.learner import nets as nets
from ornstein.experiment.learner import objectives as objectives
from ornstein.experiment.learner import readings as readings
from ornstein.experiment.learner import steppers as steppers
from ornstein.files import regular
from ornstein.latent.learner import Clean
from ornstein.mixed import Product
from ornstein.samplers import DEFAULT_STEPPER
from ornstein.samplers.noise_ladder import AdvisedLadder
from ornstein.training import AUTO, PRECISIONS, Training

#: raised by one when an old file can no longer be read as it is
VERSION = 2
#: what an older file meant by saying nothing: the version since which it must be said -> a field and its value, or a
#: noun, entry, arguments
_ONCE: dict[int, dict[str, Any]] = {2: {"noise_unit": 1.0, "process": {"euler-ou": {"order": "falling"}}}}

#: samples of a picture that is drawn while training
MOST_PREVIEW = 4096
#: every clock of Gaussian noise that an experiment can name, one that the data decide among them
GAUSSIAN: Mapping[str, Callable[..., Any]] = ChainMap({"advised-ladder": AdvisedLadder}, CLOCKS)
#: and every process
PROCESSES: Mapping[str, Callable[..., Any]] = ChainMap(
    {"advised-ladder": AdvisedLadder, "product": Product, "clean": Clean}, CLOCKS, KERNELS, NAMED_PATHS
)
#: presets that are another preset with another data set
_ALIKE = {
    "fashion-mnist": "mnist",
    **dict.fromkeys(("moons", "swiss-roll", "eight-gaussians", "checkerboard", "pinwheel", "spirals"), "points"),
}


@dataclass(frozen=True)
class Sampling:
    """How a run draws by default.

    Args:
        stepper: a name of the learner's `steppers` with its options.
        steps: how many steps; None for every level of a chain, a step for each token, and 30 in continuous time.
        grid: a name of `GRIDS`, or None: "trailing" on a chain, the stepper's usual one in continuous time
            ("balanced" for the default stepper).
        ema: which average of the weights to draw with, one of `training.ema`; 0 for the raw weights.
        preview: how many samples each picture made during training shows; 0 for no pictures, which of a short run
            are most of the work.
        precision: type of the network's arithmetic in drawing: "float32", "bfloat16", "float16", or "auto" for the
            fastest by measurement. Likelihoods are always in float32.
    """

    stepper: dict[str, Any] = field(default_factory=lambda: {"name": DEFAULT_STEPPER})
    steps: int | None = 30
    grid: str | None = None
    ema: float = 0.05
    preview: int = 64
    precision: str = "float32"

    def __post_init__(self) -> None:
        object.__setattr__(self, "stepper", choice(steppers(), self.stepper, "stepper"))
        if self.grid is not None:
            lookup(GRIDS, self.grid, "grid")
        lookup({AUTO: None, **PRECISIONS}, self.precision, "sampling.precision")
        for name, least, most in (("steps", 1, MOST_STEPS), ("preview", 0, MOST_PREVIEW)):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(f"sampling.{name}={value!r} must be a whole number from {least} to {most:,}.")


@dataclass(frozen=True)
class Experiment:
    """One of each noun, with data and training; made by `Experiment.read`, complete in every default.

    `data`, `process`, `net`, `objective` and `learner` are dicts of a "name" and the arguments of that entry of the
    room's table. If no learner is named, `predicts` and the objective imply one. Noise is measured in units of
    sigma_data; `noise_unit` is another unit, for older runs. `reasons` has a sentence for each choice that was made
    for the user's own file or folder (`ornstein.experiment.own`).
    `start` is the folder of the run whose weights, types and scales this one began with (`ornstein.experiment.start`).
    """

    data: dict[str, Any]
    process: dict[str, Any]
    net: dict[str, Any]
    objective: dict[str, Any]
    predicts: str = "v"
    learner: dict[str, Any] | None = None
    training: Training = field(default_factory=Training)
    sampling: Sampling = field(default_factory=Sampling)
    noise_unit: float | None = None
    version: int = VERSION
    reasons: dict[str, str] = field(default_factory=dict)
    start: str | None = None

    def __post_init__(self) -> None:
        if self.version > VERSION:
            raise InputError(
                f"version={self.version} of the experiment is newer than this ornstein reads ({VERSION}); upgrade it."
            )
        if self.noise_unit is not None and not 0 < self.noise_unit < math.inf:
            raise InputError(f"noise_unit={self.noise_unit!r} must be positive, or null for sigma_data.")
        for noun, table in _tables().items():
            if noun != "learner":
                object.__setattr__(self, noun, choice(table, getattr(self, noun), noun))
        # as the source itself takes it: a path from the root, so that a run finds its data from wherever it is opened
        object.__setattr__(self, "data", {"name": self.data["name"], **asdict(construct(DATA, self.data))})
        lookup(readings(), self.predicts, "predicts")
        object.__setattr__(self, "learner", choice(LEARNERS, self.learner or self._implied(), "learner"))
        self._fits()
        ema = self.sampling.ema
        if ema and ema not in self.training.ema:
            known = ", ".join(map(str, self.training.ema)) or "none"
            raise InputError(f"sampling.ema={ema} is not tracked: training.ema has {known}; 0 takes the raw weights.")

    def _implied(self) -> str:
        """The learner that is meant where none is named."""
        objective = construct(objectives(), self.objective)
        return next(name for name, entry in LEARNERS.items() if entry.implied(self.predicts, objective))

    def _fits(self) -> None:
        name = self.learner["name"]  # type: ignore[index]
        entry = LEARNERS[name]
        objective = self.objective["name"]
        if objective not in entry.objectives:
            other, takes = next(item for item in LEARNERS.items() if objective in item[1].objectives)
            raise InputError(
                f"objective={objective!r} does not teach learner={name!r}, with predicts={self.predicts}; it teaches "
                f"{other!r}, with predicts={' or '.join(takes.readings)}."
            )
        if self.predicts not in entry.readings:
            raise InputError(
                f"predicts={self.predicts!r} does not go with learner={name!r}; take {', '.join(entry.readings)}."
            )
        if self.net["name"] not in nets_of(entry):
            raise InputError(
                f"net={self.net['name']!r} does not go with learner={name!r}; take {', '.join(nets_of(entry))}."
            )
        if self.process["name"] not in (known := entry.processes or GAUSSIAN):
            raise InputError(
                f"process={self.process['name']!r} does not go with learner={name!r}; take {', '.join(known)}."
            )
        if self.sampling.stepper["name"] not in steppers_of(entry):
            raise InputError(
                f"sampling.stepper={self.sampling.stepper['name']!r} does not draw from learner={name!r}; take "
                f"{', '.join(steppers_of(entry))}."
            )

    @staticmethod
    def read(source: "str | Path | Mapping[str, Any] | own.Own", overrides: Iterable[str] = ()) -> "Experiment":
        """The experiment of a preset's name, a YAML file, the user's own data or a dict, with overrides applied.

        Args:
            source: see above. For a file or folder of data the choices follow from what it is: see
                `ornstein.experiment.own`; for data in memory an `Own` has them.
            overrides: each `path=value`.

        Raises:
            InputError: anything unknown, of the wrong type or out of range, in one sentence that names it.
        """
        changes = [_parted(override) for override in overrides]
        tree = _dated(_tree(source, changes))
        nouns = {keys[0] for keys, _ in changes}
        named = {".".join(keys).removesuffix(".name") for keys, _ in changes}
        if named & {"preset", "predicts", "objective"} and "learner" not in nouns:
            tree.pop("learner", None)  # it was implied by what has changed
        for keys, value in changes:
            if keys == ["preset"]:
                _lay_over(tree, value)
        if own.by_time(_said(changes)) and not (isinstance(source, Mapping) or _is_own(source)):
            _set(tree, ["training", "steps"], own.ENDLESS)
        for keys, value in changes:
            if keys == ["data"] and isinstance(value, str) and isinstance(now := tree.get("data"), Mapping):
                if now.get("name") == value:  # which it is already
                    continue
                if _is_own(source):  # the same file, read in another way
                    value = {"name": value, "path": now["path"]}
            if keys != ["preset"] and not _taken_in(source, tree, keys):
                _set(tree, _within(tree, keys), value)
            if isinstance(tree.get("reasons"), Mapping):  # what is said needs none
                tree["reasons"] = {k: v for k, v in tree["reasons"].items() if k != ".".join(keys)}
        for noun in _tables():  # `process: vp` says the same as `process: {name: vp}`
            if isinstance(tree.get(noun), str):
                tree[noun] = {"name": tree[noun]}
        for name, section in (("training", Training), ("sampling", Sampling)):
            if isinstance(given := tree.get(name, {}), Mapping):
                if isinstance(given.get("stepper"), str):
                    given = {**given, "stepper": {"name": given["stepper"]}}
                tree[name] = section(**validated(section, given, f"{name}."))
        return Experiment(**validated(Experiment, tree, ""))

    def to_yaml(self) -> str:
        """The whole experiment, every default written out; `read` gives it back."""
        tree = json.loads(json.dumps(asdict(self)))  # tuples become lists
        return plain.written({key: part for key, part in tree.items() if part or key not in ("reasons", "start")})


def _tables() -> dict[str, Mapping[str, Callable[..., Any]]]:
    return {"data": DATA, "process": PROCESSES, "net": nets(), "objective": objectives(), "learner": LEARNERS}


def presets() -> dict[str, str]:
    """Every preset by name, with its description: the first comment of its file."""
    alike = {name: f"The data set {name!r}, trained as {like!r}." for name, like in _ALIKE.items()}
    return {**_described("presets"), **alike}


def methods() -> dict[str, str]:
    """Every method by name, with its description: a preset without data, laid over another by `preset=NAME`."""
    return dict(_described("methods"))


def key_of(name: str) -> str | None:
    """The key of an experiment that ends in this name: "training.steps" of "steps"; None where there is none."""
    if name in _tables() or name == "predicts":
        return name
    for section, kind in (("training", Training), ("sampling", Sampling)):
        if name in kind.__dataclass_fields__:
            return f"{section}.{name}"
    return None


def _folder(name: str) -> Any:
    return resources.files("ornstein.experiment").joinpath(name)


@cache
def _described(folder: str) -> Mapping[str, str]:
    files = sorted(_folder(folder).iterdir(), key=lambda file: file.name)
    return {
        file.name.removesuffix(".yaml"): file.read_text("utf-8").splitlines()[0].removeprefix("# ") for file in files
    }


def _tree(
    source: "str | Path | Mapping[str, Any] | own.Own", changes: Sequence[tuple[list[str], Any]] = ()
) -> dict[str, Any]:
    if isinstance(source, Mapping):
        return dict(source)
    if isinstance(source, own.Own):
        return _own_tree(source, _said(changes))
    name = str(source)
    if _is_own(source):
        return _own_tree(own.chosen(name, _said(changes)), _said(changes))
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
    said = _said(changes)
    if ends.fields_of(tree["data"]) and "data" not in said and any(key.startswith("data.") for key in said):
        return _own_tree(ends.chosen(name, tree, said), said)
    return tree


def _is_own(source: "str | Path | Mapping[str, Any] | own.Own") -> bool:
    """Whether an experiment is named by a path to data; a preset's name goes before a file of that name."""
    if isinstance(source, (Mapping, own.Own)):
        return isinstance(source, own.Own)
    return str(source) not in (*presets(), *methods()) and own.is_own(str(source))


def _taken_in(source: Any, tree: Mapping[str, Any], keys: Sequence[str]) -> bool:
    """Whether a change has been taken into what was chosen for the ends of a preset's bridge."""
    asked = isinstance(source, str) and source in presets()
    return asked and len(keys) > 1 and keys[0] == "data" and keys[1] in ends.fields_of(tree.get("data"))


def _said(changes: Iterable[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """Changes by their dotted keys."""
    return {".".join(keys): value for keys, value in changes}


def _own_tree(found: own.Own, said: Mapping[str, Any]) -> dict[str, Any]:
    """The preset that suits a person's own data, with what they decide, and the reasons."""
    tree = _tree(found.preset)
    training = Training(**validated(Training, tree.get("training", {}), "training."))
    batch, steps = (
        value if type(value := said.get(f"training.{key}", getattr(training, key))) is int else getattr(training, key)
        for key in ("batch_size", "steps")
    )
    found = own.sized(found, batch, own.ENDLESS if own.by_time(said) else steps)
    tree["data"] = {**(tree["data"] if isinstance(tree["data"], Mapping) else {}), **found.data}
    for key, value in found.changes.items():
        if key not in said:
            _set(tree, key.split("."), value)
    return {**tree, "reasons": {key: why for key, why in found.reasons.items() if key not in said}}


def _dated(tree: dict[str, Any]) -> dict[str, Any]:
    """A tree of an older version in the words of this one, so that what was trained stays what it was."""
    written = tree.get("version", VERSION)
    if type(written) is not int or written >= VERSION:
        return tree
    for key, meant in (item for since, once in _ONCE.items() if since > written for item in once.items()):
        given = tree.get(key)
        if not isinstance(meant, Mapping):
            tree.setdefault(key, meant)
        elif isinstance(given := {"name": given} if isinstance(given, str) else given, Mapping):
            tree[key] = {**meant.get(str(given.get("name")), {}), **given}
    return {**tree, "version": VERSION}


def _mapping(tree: Any, name: str) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InputError(f"{name} must hold a mapping of data, process, net, objective, ...; it holds {brief(tree)}.")
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
            if key == "data":  # data that are made of those of the preset
                tree[key] = {**value, **({"of": tree[key]} if key in tree else {})}
            elif key not in ("training", "sampling"):
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


def _within(tree: Mapping[str, Any], keys: list[str]) -> list[str]:
    """Where a setting of the data stands: of those that a method wraps, which are `of`, with these."""
    data = tree.get("data")
    if keys[0] != "data" or len(keys) == 1 or not isinstance(data, Mapping) or data.get("name") not in DATA:
        return keys
    known = DATA[data["name"]].__dataclass_fields__  # type: ignore[attr-defined]
    if "of" not in known or keys[1] in (*known, "name") or not isinstance(data.get("of"), str | Mapping):
        return keys
    return ["data", "of", *keys[1:]]


def _set(tree: dict[str, Any], keys: list[str], value: Any) -> None:
    node = tree
    for key in keys[:-1]:
        below = node.get(key)
        if isinstance(below, str):
            below = {"name": below}
        node[key] = dict(below) if isinstance(below, Mapping) else {}
        node = node[key]
    node[keys[-1]] = value
