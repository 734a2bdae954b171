"""Additions from outside: a table can grow without an edit of this package.

Each room names what it has in one plain dict, and whatever lists, configures, builds or checks reads that dict. So an
addition is one more entry, wherever it comes from:

    ornstein.register("process", "quarter-circle", Trigonometric)

or, in a package that others install, an entry point in its pyproject.toml that says the same:

    [project.entry-points."ornstein.processes"]
    trigonometric = "my_package:Trigonometric"

Entry points are read when the command line or an experiment first needs a table, never by `import ornstein` alone. Only
installed packages are loaded: a run folder names entries of tables, and never code to import.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, TypeVar, get_type_hints, overload

from ornstein.errors import InputError, PluginWarning, lookup

Entry = TypeVar("Entry", bound=Callable[..., Any])


@dataclass(frozen=True)
class Table:
    """Where a table is, and what belongs in it.

    Attributes:
        plural: of the noun; the group of entry points is `ornstein.` followed by this.
        home: the module that holds the table, below `ornstein`.
        name: of the dict in it.
        kind: "module:Class" of what calling an entry makes; a class is such a one itself. "" for anything callable.
        configured: whether an experiment writes down the arguments of an entry, according to its signature.
        place: the setting of an experiment that names entries, "" for one that no other table shares: a name must be
            free in every table with the same place, and not be among `KEPT` there.
    """

    plural: str
    home: str
    name: str
    kind: str = ""
    configured: bool = True
    place: str = ""

    def read(self) -> dict[str, Any]:
        """The table itself; its room is loaded only now."""
        table: dict[str, Any] = getattr(import_module(f"ornstein.{self.home}"), self.name)
        return table


#: every table by the noun of its entries
TABLES: dict[str, Table] = {
    "process": Table("processes", "core", "PROCESSES", "core.process:Process", place="process"),
    "kernel": Table("kernels", "discrete", "KERNELS", "discrete:Kernel", place="process"),
    "stepper": Table("steppers", "samplers", "STEPPERS", "core.drive:Stepper", place="stepper"),
    "token-stepper": Table("token_steppers", "discrete", "TOKEN_STEPPERS", "discrete:TokenStepper", place="stepper"),
    "grid": Table("grids", "core.grids", "GRIDS", configured=False),
    "objective": Table("objectives", "objectives", "OBJECTIVES", place="objective"),
    "energy-objective": Table("energy_objectives", "energies", "ENERGY_OBJECTIVES", place="objective"),
    "token-objective": Table(
        "token_objectives", "discrete", "TOKEN_OBJECTIVES", "discrete:TokenObjective", place="objective"
    ),
    "token-reading": Table("token_readings", "discrete", "TOKEN_READINGS", "discrete:TokenReading"),
    "path": Table("paths", "bridge.learner", "NAMED_PATHS", "bridge:Path", place="process"),
    "bridge-stepper": Table("bridge_steppers", "bridge", "BRIDGE_STEPPERS", "bridge:BridgeStepper", place="stepper"),
    "guidance": Table("guidance", "guidance", "GUIDANCE", "guidance:Guidance", configured=False),
    "operator": Table("operators", "guidance", "OPERATORS", configured=False),
    "net": Table("nets", "nets", "NETS", "nets:NetConfig"),
    "data": Table("data", "data", "DATA", "data:Source"),
    "transform": Table("transforms", "data", "TRANSFORMS", "data:Transform", configured=False),
    "metric": Table("metrics", "metrics", "METRICS", "metrics:Metric"),
    "learner": Table("learners", "experiment.learner", "LEARNERS", "core.learner:Learner", configured=False),
}

#: names to which learners give a meaning of their own, by place
KEPT: dict[str, tuple[str, ...]] = {
    "process": ("advised-ladder", "product", "clean"),
    "stepper": ("any-order", "together", "renoise"),
    "objective": (
        *("classifier", "masked", "bridge", "markovian-fitting", "reflow", "joint", "token-classifier"),
        *("reconstruction", "progressive", "consistency", "moments", "rectified", "endpoint"),
    ),
}

#: which packages put an entry into its table from outside: (noun, name) -> their names
_OWNERS: dict[tuple[str, str], set[str]] = {}
#: what has been loaded already; filled before loading, since a package that is being loaded may start it again
_LOADED: list[str] = []


@overload
def register(noun: str, name: str, entry: None = None) -> Callable[[Entry], Entry]: ...


@overload
def register(noun: str, name: str, entry: Entry) -> Entry: ...


def register(noun: str, name: str, entry: Any = None) -> Any:
    """Put an entry into the table of its noun: as a call, or as a decorator.

    The entry is then listed, configured and built like any other, and `python -m ornstein.laws PACKAGE` checks it
    against the laws. Registering it twice changes nothing; a new definition of the same class, as in a notebook's cell,
    replaces the old one.

    Args:
        noun: a key of `TABLES`: "process", "stepper", "objective", ...
        name: lower case, of letters, digits, "-", "_" and "+".
        entry: what the table holds: a class, or a function that makes one of the kind. None: return a decorator.

    Returns:
        The entry, as it came.

    Raises:
        InputError: an invalid noun or name, a name that is taken, an entry that does not say what it is in the first
            line of its docstring, or that cannot be made from its signature.
    """
    if entry is None:
        return lambda entry: register(noun, name, entry)
    table = lookup(TABLES, noun, "noun")
    if not (isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9+_-]*", name)):
        raise InputError(f"{noun} name {name!r} must be lower case, of letters, digits, '-', '_' and '+'.")
    for other in (noun, *(key for key, each in TABLES.items() if table.place and each.place == table.place)):
        taken = TABLES[other].read().get(name)
        if taken is not None and not (other == noun and _same(taken, entry)):
            raise InputError(f"{noun} name {name!r} is taken by {_path(taken)}; choose another name.")
    if name in KEPT.get(table.place, ()):
        raise InputError(f"{noun} name {name!r} is taken by ornstein.experiment; choose another name.")
    check(noun, name, entry)
    table.read()[name] = entry
    _OWNERS.setdefault((noun, name), set()).add(_path(entry).split(".")[0])
    return entry


def load_installed() -> None:
    """Register what installed packages name as entry points, once.

    An entry that cannot be loaded or does not belong in the table is left out, with a `PluginWarning`.
    """
    if _LOADED:
        return
    _LOADED.append("entry points")
    found = metadata.entry_points()
    for noun, table in TABLES.items():
        points = found.select(group=f"ornstein.{table.plural}")
        for point in sorted(points, key=lambda point: (point.name, point.value)):  # in the same order everywhere
            package = point.dist.name if point.dist else point.module
            try:
                register(noun, point.name, point.load())
            except (Exception, SystemExit) as error:  # whatever a package does when it is imported
                reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}."
                warnings.warn(
                    f"{noun} {point.name!r} of the package {package} is left out: {' '.join(reason.split())}",
                    PluginWarning,
                    stacklevel=2,
                )
            else:
                _OWNERS[noun, point.name].add(package)


def entries(package: str | None = None) -> list[tuple[str, str, Any]]:
    """(noun, name, entry) of every entry, or of those that a package has registered.

    Args:
        package: its name for import or installation, or "ornstein" for what comes with ornstein. The package is
            imported, since it may register its entries then.

    Raises:
        InputError: a package that cannot be imported, or registers nothing.
    """
    load_installed()
    known = set().union(*_OWNERS.values()) if _OWNERS else set()
    if package not in (None, "ornstein") and package not in known:
        try:
            import_module(str(package))
        except Exception as error:  # whatever a package does when it is imported
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise InputError(f"package={package!r} cannot be imported: {reason}.") from None
    found = [
        (noun, name, entry)
        for noun, table in TABLES.items()
        for name, entry in table.read().items()
        if package is None or package in _OWNERS.get((noun, name), {"ornstein"})
    ]
    if not found:
        raise InputError(
            f"package={package!r} registers nothing: it needs an entry point such as ornstein.processes in its "
            "pyproject.toml, or a call of ornstein.register that runs on import."
        )
    return found


def _same(old: Any, new: Any) -> bool:
    """Whether `new` is `old`, or a later definition of it."""
    return old is new or (_path(old) == _path(new) and "<locals>" not in _path(new))


def _path(entry: Any) -> str:
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', repr(entry))}"


def check(noun: str, name: str, entry: Any) -> None:
    """Raise unless an entry is what the table of its noun holds.

    Raises:
        InputError: as for `register`.
    """
    what, table = f"{noun} {name!r}", TABLES[noun]
    if not callable(entry):
        raise InputError(f"{what} is {entry!r}; it must be a class, or a function that makes one.")
    line = (inspect.getdoc(entry) or "").partition("\n")[0]
    if not (10 < len(line) <= 120 and line.endswith(".")):
        raise InputError(
            f"{what} must say what it is in the first line of its docstring, one sentence of 11 to 120 characters that "
            f"ends with a period; it says {line!r}."
        )
    kind = _kind(table)
    if inspect.isclass(entry) and kind is not None and not issubclass(entry, kind):
        raise InputError(f"{what} is the class {entry.__qualname__}, which is not an ornstein {kind.__name__}.")
    if table.configured:
        _made(what, kind, entry)


def _made(what: str, kind: type | None, entry: Callable[..., Any]) -> None:
    """Raise if a file cannot name an entry's arguments, or if with its defaults it does not make what it should."""
    try:
        hints = get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
        parameters = inspect.signature(entry).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise InputError(f"{what} has a signature that cannot be read: {error}.") from None
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InputError(f"{what} takes {parameter}; a file can only name single arguments.")
        if parameter.name not in hints:
            raise InputError(f"{what} takes {parameter.name!r} without a type; annotate it: {parameter.name}: float.")
    if any(parameter.default is parameter.empty for parameter in parameters):
        return  # such as data in a folder, which has no default
    try:
        made = entry()
    except Exception as error:
        raise InputError(f"{what} cannot be made with its defaults: {' '.join(str(error).split())}") from None
    if not (isinstance(made, kind) if kind else callable(made)):
        raise InputError(f"{what} makes {made!r:.60}, which is not a {kind.__name__ if kind else 'callable'}.")


def _kind(table: Table) -> type | None:
    if not table.kind:
        return None
    module, _, name = table.kind.partition(":")
    kind: type = getattr(import_module(f"ornstein.{module}"), name)
    return kind
