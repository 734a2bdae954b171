"""Small changes to a program, one at a time, each of which some test ought to notice (DeMillo, Lipton & Sayward 1978).

A mutation replaces one expression or statement: an operator, a bound, a constant, a condition, an argument. What cannot
change what a program does is left alone: docstrings, messages of errors, types, decorators, assertions, and `strict=`
of `zip`, which is one.
"""

import ast
import copy
import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult,
    ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
}  # fmt: skip
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
#: functions and methods that are left out, so that their argument stays as it is
LEFT_OUT = {"sqrt", "clamp", "clamp_", "abs"}
OTHER_END = {"min": "max", "max": "min"}
#: whose arguments may change places
EITHER_WAY = {"min", "max", "minimum", "maximum", "hypot", "gcd", "lcm"}


@dataclass(frozen=True)
class Mutation:
    """A change of one place.

    Attributes:
        file: from the folder of the package.
        where: the function or class, "" at the top.
        kind: what is changed.
        before: the code, and `after` what stands for it.
        nth: which of several such places in that function, from 0.
        line: where it stands, and `start`, `end` in bytes.
    """

    file: str
    where: str
    kind: str
    before: str
    after: str
    nth: int
    line: int
    start: int
    end: int

    @property
    def key(self) -> str:
        """What stays true of it when lines move."""
        return f"{self.file}:{self.where}: {self.before} -> {self.after}" + (f" #{self.nth}" if self.nth else "")

    def applied(self, source: str) -> str:
        """The program with this change."""
        raw = source.encode()
        put = self.after if self.kind in ("statement", "return") else f"({self.after})"
        return (raw[: self.start] + put.encode() + raw[self.end :]).decode()


def mutations(source: str, file: str) -> list[Mutation]:
    """Every change of a program, in the order of its lines."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    seen: dict[tuple[str, str, str], int] = defaultdict(int)
    found = []
    for node, where, kind, after in _Finder().all_of(ast.parse(source)):
        before, written = ast.unparse(node), after if isinstance(after, str) else ast.unparse(after)
        nth, seen[where, before, written] = seen[where, before, written], seen[where, before, written] + 1
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)
        found.append(Mutation(file, where, kind, before, written, nth, node.lineno, start, end))
    return found


def drawn(all_of: dict[str, list[Mutation]], lines: dict[str, int], count: int, seed: int) -> list[Mutation]:
    """So many of them by seed: of each file by its lines of code, of its kinds in turn, whatever else is changed."""

    def place(mutation: Mutation) -> str:
        return hashlib.sha256(f"{seed} {mutation.key}".encode()).hexdigest()

    total = sum(lines[file] for file in all_of)
    shares = {file: count * lines[file] / total for file in all_of}
    taken = {file: int(share) for file, share in shares.items()}
    most = sorted(all_of, key=lambda file: (taken[file] - shares[file], file))
    for file in most[: count - sum(taken.values())]:
        taken[file] += 1
    sample: list[Mutation] = []
    for file, found in all_of.items():
        kinds: dict[str, list[Mutation]] = defaultdict(list)
        for mutation in sorted(found, key=place):
            kinds[mutation.kind].append(mutation)
        turns = [(turn, place(one), one) for of_kind in kinds.values() for turn, one in enumerate(of_kind)]
        sample += [one for _, _, one in sorted(turns, key=lambda each: each[:2])[: taken[file]]]
    return sample


def lines_of_code(source: str) -> int:
    """Lines on which a statement stands, without docstrings."""
    held = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt) and not is_text(node):
            held.add(node.lineno)
    return len(held)


Found = tuple[ast.expr | ast.stmt, str, str, ast.AST | str]


class _Finder:
    """Walks a program and yields (node, where, kind, what stands for it)."""

    def all_of(self, tree: ast.Module) -> Iterator[Found]:
        for statement in tree.body:
            yield from self.inside(statement, "")

    def inside(self, node: ast.AST, where: str) -> Iterator[Found]:
        """Of a node and all below it."""
        if _says_nothing(node):
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            where = f"{where}.{node.name}" if where else node.name
            below: list[ast.AST] = list(node.body)
            if isinstance(node, ast.FunctionDef):
                below += [default for default in [*node.args.defaults, *node.args.kw_defaults] if default]
        elif isinstance(node, ast.AnnAssign):
            below = [node.value] if node.value else []
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value is Ellipsis:
            below = [node.value]
        else:
            below = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.expr | ast.stmt):
            for kind, after in _changes(node):
                yield node, where, kind, after
        for child in below:
            yield from self.inside(child, where)


def is_text(node: ast.AST) -> bool:
    """A docstring, or another constant that stands by itself."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _says_nothing(node: ast.AST) -> bool:
    """What is of no use to change: messages, types, assertions."""
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom) or is_text(node):
        return True
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.func.id in ("InputError", "TypeVar", "cast", "isinstance")
    if isinstance(node, ast.Assign):
        return any(isinstance(target, ast.Name) and target.id == "__all__" for target in node.targets)
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _changes(node: ast.expr | ast.stmt) -> Iterator[tuple[str, ast.AST | str]]:
    """(kind, what stands for it) of one node, not of those below."""
    if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        if not any(isinstance(side, ast.JoinedStr) or _is_string(side) for side in (node.left, node.right)):
            yield "operator", ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
    elif isinstance(node, ast.Compare):
        for k, op in enumerate(node.ops):
            kind = "bound" if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) else "comparison"
            ops = [*node.ops[:k], COMPARISONS[type(op)](), *node.ops[k + 1 :]]
            yield kind, ast.Compare(node.left, ops, node.comparators)
    elif isinstance(node, ast.BoolOp):
        yield "and, or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield ("not" if isinstance(node.op, ast.Not) else "sign"), node.operand
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "truth", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield "constant", ast.Constant(_other(node.value))
        if node.value:
            yield "sign", f"-{node.value!r}"
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield "return", "return None"
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and not _says_nothing(node.value):
        yield "statement", "pass"
    elif isinstance(node, ast.Call):
        yield from _changed_calls(node)


def _changed_calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    function = node.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
    if name in LEFT_OUT:
        of_a_module = isinstance(function, ast.Name) or ast.unparse(function) in (f"math.{name}", f"torch.{name}")
        kept = None if isinstance(function, ast.Name) else getattr(function, "value", None)
        if of_a_module:
            kept = node.args[0] if node.args else None
        if kept is not None:
            yield "left out", kept
    if name in OTHER_END:
        other = copy.deepcopy(node)
        if isinstance(other.func, ast.Name):
            other.func.id = OTHER_END[name]
        elif isinstance(other.func, ast.Attribute):
            other.func.attr = OTHER_END[name]
        yield "min, max", other
    plain = not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    if len(node.args) > 1 and plain and name not in EITHER_WAY and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        yield "arguments", ast.Call(function, [node.args[1], node.args[0], *node.args[2:]], node.keywords)
    for k, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            yield "keyword", ast.Call(function, node.args, [*node.keywords[:k], *node.keywords[k + 1 :]])


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _other(value: float) -> float:
    """One more of a whole number, ten per cent more of another; 1.0 of nothing."""
    if isinstance(value, int):
        return value + 1
    return value * 1.1 if value else 1.0
