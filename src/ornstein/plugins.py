"""Additions from outside: a table grows without a file of this package being edited.

Each room names what it has in one plain dict, and whatever lists, configures, builds or checks reads that dict. So an
addition is a line in it, from wherever it comes:

    ornstein.register("process", "quarter-circle", Trigonometric)

or, in a package that others install, an entry point that says the same in its pyproject.toml:

    [project.entry-points."ornstein.processes"]
    trigonometric = "my_package:Trigonometric"

Entry points are read when the command line or an experiment first needs a table, never by `import ornstein` alone. What
is loaded is what was installed: a run folder names entries of tables, and never code to import.
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
    """Where a table is, and what belongs into it.

    Attributes:
        plural: of the noun; the group of entry points is `ornstein.` and this.
        home: the module that holds the table, below `ornstein`.
        name: of the dict in it.
        kind: "module:Class" that an entry must make, or be where nothing is made of it; "" for anything callable.
        configured: whether an experiment writes down the arguments of an entry, read off its signature.
        place: where an experiment reads its names, "" for a place of its own: a name must be free in every table of
            that place, and among `KEPT` there.
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

#: names that learners give a meaning of their own, by the place where an experiment reads them
KEPT: dict[str, tuple[str, ...]] = {
    "process": ("advised-ladder", "product", "clean"),
    "stepper": ("any-order", "together"),
    "objective": (
        *("classifier", "masked", "bridge", "markovian-fitting", "reflow", "joint", "token-classifier"),
        "reconstruction",
    ),
}

#: who put an entry into its table from outside: (noun, name) -> names of packages
_OWNERS: dict[tuple[str, str], set[str]] = {}
#: what has been loaded already; filled before it is done, since a package that is loaded may ask for it again
_LOADED: list[str] = []


@overload
def register(noun: str, name: str, entry: None = None) -> Callable[[Entry], Entry]: ...


@overload
def register(noun: str, name: str, entry: Entry) -> Entry: ...


def register(noun: str, name: str, entry: Any = None) -> Any:
    """Put an entry into the table of its noun: as a call, or as a decorator.

    It is then listed, configured, built, and held to the laws by `python -m ornstein.laws PACKAGE` like any other.
    Doing it twice changes nothing; a new definition of the same class, as in a notebook's cell, takes its place.

    Args:
        noun: a key of `TABLES`: "process", "stepper", "objective", ...
        name: lower case, of letters, digits, "-", "_" and "+".
        entry: what the table holds: a class, or a function that makes one of the kind. None: return a decorator.

    Returns:
        The entry, as it came.

    Raises:
        InputError: a noun or name that cannot be, a name that somebody else has, an entry that does not say what it is
            in the first line of its docstring, or that cannot be made from its signature.
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

    A package whose entry cannot be loaded or does not belong into the table is left out, with a `PluginWarning`.
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
        package: as it is imported or installed, or "ornstein" for what comes with it; it is imported, since that may be
            where it registers.

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
            "pyproject.toml, or a call of ornstein.register where it is imported."
        )
    return found


def _same(old: Any, new: Any) -> bool:
    """Whether one is a later definition of the other."""
    return old is new or (_path(old) == _path(new) and "<locals>" not in _path(new))


def _path(entry: Any) -> str:
    return f"{getattr(entry, '__module__', '?')}.{getattr(entry, '__qualname__', repr(entry))}"


def check(noun: str, name: str, entry: Any) -> None:
    """Refuse an entry that is not what the table of its noun holds.

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
        raise InputError(f"{what} is the class {entry.__qualname__}, which is no ornstein {kind.__name__}.")
    if table.configured:
        _made(what, kind, entry)


def _made(what: str, kind: type | None, entry: Callable[..., Any]) -> None:
    """Refuse an entry whose arguments a file cannot name, or that does not make what it should of its defaults."""
    try:
        hints = get_type_hints(entry.__init__ if inspect.isclass(entry) else entry)
        parameters = inspect.signature(entry).parameters.values()
    except (NameError, TypeError, ValueError) as error:
        raise InputError(f"{what} has a signature that cannot be read: {error}.") from None
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise InputError(f"{what} takes {parameter}; a file can name single arguments alone.")
        if parameter.name not in hints:
            raise InputError(f"{what} takes {parameter.name!r} without a type; annotate it: {parameter.name}: float.")
    if any(parameter.default is parameter.empty for parameter in parameters):
        return  # data in a folder, say, which there is no default for
    try:
        made = entry()
    except Exception as error:
        raise InputError(f"{what} cannot be made with its defaults: {' '.join(str(error).split())}") from None
    if not (isinstance(made, kind) if kind else callable(made)):
        raise InputError(f"{what} makes {made!r:.60}, which is no {kind.__name__ if kind else 'callable'}.")


def _kind(table: Table) -> type | None:
    if not table.kind:
        return None
    module, _, name = table.kind.partition(":")
    kind: type = getattr(import_module(f"ornstein.{module}"), name)
    return kind
