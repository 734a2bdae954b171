"""Columns that follow from another by a line: a copy, metres and kilometres, a moment and its day."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_tokens import N, normal, table, uniform
from torch import Tensor

from ornstein.data.before import load_as_before
from ornstein.data.calendar import _STARTS, DAY, component
from ornstein.data.schema import ColumnType
from ornstein.data.table import Table
from ornstein.data.tokens import Tokens
from ornstein.data.transform import Transform
from ornstein.errors import InputError
from ornstein.experiment.cells import _agreeing, _consistent, draw_rows, filled, impute, known_of, must_be_table
from ornstein.experiment.config import Experiment
from ornstein.experiment.run import Run
from ornstein.experiment.train import train
from ornstein.experiment.where import Where


def number(name: str, decimals: int) -> ColumnType:
    kind = "number" if decimals else "integer"
    return ColumnType(name, kind, decimals=decimals, format="short", missing=("",))  # type: ignore[arg-type]


def rounded(values: Tensor, decimals: int) -> Tensor:
    return (values * 10.0**decimals).round() / 10.0**decimals


def date(name: str, step: float) -> ColumnType:
    return ColumnType(name, "date", format="%Y-%m-%d %H:%M" if step < DAY else "%Y-%m-%d", step=step, missing=("",))


def moments() -> Tensor:
    """Moments of two years by the minute, too many for a class each, some of them missing."""
    when = 1_577_836_800 + (uniform(N, seed=21) * 730 * 1440).floor() * 60
    return torch.where(uniform(N, seed=22) < 0.1, math.nan, when)


def by_chance(tokens: Tokens, count: int = 3000) -> Tensor:
    """Rows of any tokens whatever, as a model that has learnt nothing would draw them."""
    dice = torch.Generator().manual_seed(5)
    return tokens.rows(torch.stack([torch.randint(k, (count,), generator=dice) for k in tokens.categories.sizes], 1))


def as_written(rows: Tensor, types: list[ColumnType]) -> Tensor:
    written = [[t.rounded(v) for t, v in zip(types, row, strict=True)] for row in rows.tolist()]
    return torch.tensor(written, dtype=torch.float64)


def python_start(seconds: float, name: str) -> float:
    from datetime import UTC, datetime, timedelta

    at = datetime.fromtimestamp(seconds, UTC)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    start = {
        "value": at,
        "start of second": at.replace(microsecond=0),
        "start of minute": at.replace(second=0, microsecond=0),
        "start of hour": at.replace(minute=0, second=0, microsecond=0),
        "start of day": day,
        "start of week": day - timedelta(days=day.weekday()),
        "start of month": day.replace(day=1),
        "start of quarter": day.replace(day=1, month=(day.month - 1) // 3 * 3 + 1),
        "start of year": day.replace(day=1, month=1),
    }
    return start[name].timestamp()


def test_starts_agree_with_pythons() -> None:
    seconds = torch.cat([(uniform(400) * 6e9 - 2e9).floor(), torch.tensor([951782400.0, 951868799.0, 978307199.0])])
    for name in _STARTS:
        expected = torch.tensor([python_start(s, name) for s in seconds.tolist()], dtype=torch.float64)
        assert torch.equal(component(name, seconds.double()), expected), name


@pytest.mark.parametrize("name", [name for name in _STARTS if name not in ("value", "start of second")])
def test_a_date_that_follows_from_another_agrees_in_every_row(name: str) -> None:
    when = moments()
    start = component(name, when) if name != "start of minute" else when + 9 * DAY
    rows, types = torch.stack([start, when], 1), [date("start", 60), date("when", 60)]
    tokens = Tokens.fit(rows, types)
    source = 0 if name == "start of minute" else 1  # of two that determine each other the first is kept
    assert [(d.column, d.source) for d in tokens.derived] == [(1 - source, source)]
    assert len(tokens.coded) == 2
    drawn = as_written(by_chance(tokens), types)
    found = drawn[:, 1] + 9 * DAY if source == 0 else component(name, drawn[:, 1])
    assert torch.equal(drawn[:, 0].nan_to_num(), found.nan_to_num())
    assert 0.01 < float(drawn.isnan().all(1).double().mean()) == float(drawn.isnan().any(1).double().mean())
    assert torch.equal(tokens.log_abs_det(rows), Tokens(tokens.coded, (), 2).log_abs_det(rows))
    assert Transform.from_dict(tokens.to_dict()) == tokens


def test_a_local_date_follows_from_a_moment_in_greenwich_and_the_hour_from_how_it_is_written() -> None:
    when = moments()
    day, hour = component("start of day", when - 5 * 3600), component("hour", when)
    types = [date("day", DAY), date("when", 60), number("hour", 0)]
    tokens = Tokens.fit(torch.stack([day, when, hour], 1), types)
    assert [(d.column, d.source, d.by, d.shift) for d in tokens.derived] == [
        (0, 1, "start of day", -5),
        (2, 1, "hour", 0),
    ]
    drawn = as_written(by_chance(tokens), types)
    assert bool((by_chance(tokens)[:, 1] % 60 != 0).any())  # which are rounded when they are written
    for column, name, shift in ((0, "start of day", -5), (2, "hour", 0)):
        assert torch.equal(drawn[:, column].nan_to_num(), component(name, drawn[:, 1] + 3600 * shift).nan_to_num())


#: y of x, and the decimals of x and of y
LINES: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "copy": (lambda x: x, 2, 2),
    "metres": (lambda x: 1000 * x, 2, 0),
    "kilometres": (lambda x: x / 1000, 0, 1),
    "tens of metres": (lambda x: x / 100, 0, 2),
    "fahrenheit": (lambda x: 1.8 * x + 32, 1, 1),
    "celsius": (lambda x: (x - 32) / 1.8, 1, 1),
    "miles": (lambda x: x / 1.609344, 2, 2),
    "what is left": (lambda x: 500 - x, 1, 1),
    "rounded": (lambda x: x, 2, 0),
}


@pytest.mark.parametrize("name", LINES)
def test_a_number_on_a_line_with_another_agrees_in_every_row(name: str) -> None:
    law, dx, dy = LINES[name]
    x = rounded(torch.exp(4 + normal(N, seed=31)) - 30, dx)
    x[::13] = math.nan
    rows, types = torch.stack([x, rounded(law(x), dy)], 1), [number("x", dx), number("y", dy)]
    tokens = Tokens.fit(rows, types)
    assert [(d.column, d.source, d.line) for d in tokens.derived] == [(1, 0, True)]
    drawn = by_chance(tokens)
    assert torch.equal(drawn[:, 1].nan_to_num(), rounded(law(drawn[:, 0]), dy).nan_to_num())
    assert bool(drawn.isnan().all(1).any())
    assert torch.equal(Transform.from_dict(tokens.to_dict()).rows(tokens.codes(rows)).nan_to_num(),  # type: ignore[attr-defined]
                       tokens.rows(tokens.codes(rows)).nan_to_num())  # fmt: skip


def test_the_factor_of_a_line_is_the_one_that_people_use() -> None:
    """Near it there are others that fit all rows together with a small offset, and not rows that are yet to come."""
    types = [number("miles", 2), number("km", 2)]
    for seed in (40, 64, 77):
        miles = rounded(90 * uniform(N, seed=seed), 2)
        line = Tokens.fit(torch.stack([miles, rounded(1.609344 * miles, 2)], 1), types).derived[0]
        assert (line.scale, line.offset) == (1.609344, 0)


def test_of_metres_that_are_whole_kilometres_the_kilometres_are_kept() -> None:
    km = (uniform(N, seed=32) * 900).floor()
    types = [number("m", 0), number("km", 0)]
    tokens = Tokens.fit(torch.stack([1000 * km, km], 1), types)
    assert [(d.column, d.source, d.scale) for d in tokens.derived] == [(0, 1, 1000)]
    drawn = by_chance(tokens)
    assert torch.equal(drawn[:, 0], 1000 * drawn[:, 1])


def test_a_copy_with_all_digits_of_floats_is_one() -> None:
    x = normal(N, seed=33)
    types = [ColumnType(name, "number", decimals=17, format="repr") for name in "ab"]
    tokens = Tokens.fit(torch.stack([x, x], 1), types)
    assert [(d.column, d.scale, d.offset, d.decimals) for d in tokens.derived] == [(1, 1, 0, None)]
    drawn = by_chance(tokens)
    assert torch.equal(drawn[:, 0], drawn[:, 1])


def test_one_row_that_differs_makes_no_line() -> None:
    when, x = moments(), rounded(100 * normal(N, seed=34), 2)
    types = [date("when", 60), date("day", DAY), number("x", 2), number("y", 2)]
    rows = torch.stack([when, component("start of day", when), x, x], 1)
    row = int((~when.isnan()).nonzero()[700])
    assert {d.column for d in Tokens.fit(rows, types).derived} == {1, 3}
    for column, other in ((1, DAY), (1, -DAY), (1, math.nan), (3, 0.01), (3, -0.01), (3, math.nan)):
        near = rows.clone()
        near[row, column] += other
        assert {d.column for d in Tokens.fit(near, types).derived} == {1, 3} - {column}


def test_few_values_on_a_line_are_none() -> None:
    x = torch.arange(9.0).double()
    types = [number("x", 0), number("y", 0)]
    assert not Tokens.fit(torch.stack([x, 3 * x + 1], 1), types).derived
    more = torch.arange(10.0).double()
    assert Tokens.fit(torch.stack([more, 3 * more + 1], 1), types).derived[0].line


def lines() -> tuple[Tensor, list[ColumnType], Tokens]:
    """A moment, its hour and its month; metres, kilometres; and what is left of a million metres."""
    when, metres = moments(), (torch.exp(9 + normal(N, seed=35))).round()
    types = [date("when", 60), date("hour", 3600), date("month", DAY), number("m", 0), number("km", 1)]
    types.append(number("left", 0))
    hour, month = (component(f"start of {name}", when) for name in ("hour", "month"))
    rows = torch.stack([when, hour, month, metres, rounded(metres / 1000, 1), 1_000_000 - metres], 1)
    tokens = Tokens.fit(rows, types)
    assert {(d.column, d.source) for d in tokens.derived} == {(1, 0), (2, 0), (4, 3), (5, 3)}
    return rows, types, tokens


def drawn_where(tokens: Tokens, where: Where, count: int = 4000) -> Tensor:
    """Rows of a model that has learnt nothing, given conditions: tokens by their sets, weighed, and spans within."""
    codes: list[Tensor] = []
    dice = torch.Generator().manual_seed(6)
    for token in range(tokens.categories.tokens):
        # a model that has learnt something draws no time without a day
        share = where.sets.get(token, filled(tokens)[tokens.categories.block(token)])
        after = tokens.categories.after[token]
        weight = share[codes[after]] if share.ndim == 2 else share.expand(count, -1)
        codes.append(torch.multinomial(weight.double() + 1e-300, 1, generator=dice)[:, 0])
    return tokens.rows(torch.stack(codes, 1), where.spans)


@pytest.mark.parametrize(
    ("asked", "met"),
    [
        ("km=3.2", lambda r: r[:, 4] == 3.2),
        ("km=3.2|7.0..8.5", lambda r: (r[:, 4] == 3.2) | ((r[:, 4] >= 7) & (r[:, 4] <= 8.5))),
        ("km>=12.3", lambda r: r[:, 4] >= 12.3),
        ("km<=4, m>=3990", lambda r: (r[:, 4] <= 4) & (r[:, 3] >= 3990)),
        ("left=990000..995000", lambda r: (r[:, 5] >= 990000) & (r[:, 5] <= 995000)),
        ("left>=990000, km>=9.9", lambda r: (r[:, 5] >= 990000) & (r[:, 4] >= 9.9)),
        ("month=2020-03-01", lambda r: r[:, 2] == 1_583_020_800),
        ("hour=2020-03-05 00:00..2020-03-07 00:00", lambda r: (r[:, 1] >= 1_583_366_400) & (r[:, 1] < 1_583_625_600)),
        ("hour=", lambda r: r[:, :3].isnan().all(1)),
    ],
)
def test_a_condition_on_what_follows_is_one_on_its_source(asked: str, met: Callable[[Tensor], Tensor]) -> None:
    _, types, tokens = lines()
    rows = as_written(drawn_where(tokens, Where.of(asked, tokens, types)), types)
    assert bool(met(rows).all())
    # and no more is left out: the ends are drawn, too
    known = rows[~rows[:, 4].isnan()]
    assert "km=" not in asked or {3.2} <= set(known[:, 4].tolist())
    if asked == "km=3.2":
        assert {3150, 3249} <= {*known[:, 3].tolist()} or {3151, 3249} <= {*known[:, 3].tolist()}


def test_days_that_are_asked_for_are_drawn_where_a_cell_holds_more() -> None:
    days = (uniform(N, seed=36) * 9000).floor() * DAY
    tokens = Tokens.fit(days[:, None], [date("day", DAY)])
    rows = drawn_where(tokens, Where.of("day=1980-03-05..1980-03-07", tokens, [date("day", DAY)]), 300)
    assert set((rows[:, 0] / DAY).tolist()) <= {3716, 3717, 3718}


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("hour=2020-03-05 07:00", "column 'hour' is asked for by whole days"),
        ("left=2000000", "column 'left' has never been what is asked for"),
        ("m=", "column 'm' has never been a missing value"),
        ("km=", "column 'km' has never been a missing value"),
        ("km=2, km=3", "column 'km' has never been"),
    ],
)
def test_what_cannot_be_asked_of_a_line_is_said(asked: str, says: str) -> None:
    _, types, tokens = lines()
    with pytest.raises(InputError, match=says):
        Where.of(asked, tokens, types)


def test_a_local_date_cannot_be_asked_for() -> None:
    when = moments()
    types = [date("when", 60), date("day", DAY)]
    tokens = Tokens.fit(torch.stack([when, component("start of day", when + 7 * 3600)], 1), types)
    with pytest.raises(InputError, match="column 'day' follows from another"):
        Where.of("day=2020-03-05", tokens, types)


def test_holes_are_filled_in_agreement_with_lines() -> None:
    """A source by what follows from it, and what follows by the source as it is, not as its cell."""
    rows, types, tokens = lines()
    known = rows[~rows.isnan().any(1)][:400].clone()
    for kept in (0, 1, 2, 3, 4, 5):  # one column of its family
        family = range(3) if kept < 3 else range(3, 6)
        holes = known.clone()
        for column in family:
            if column != kept:
                holes[:, column] = math.nan
        allowed = _consistent(tokens, holes, types)
        codes = torch.cat([
            torch.multinomial(allowed[:, tokens.categories.block(t)] * filled(tokens)[tokens.categories.block(t)], 1,
                              generator=torch.Generator().manual_seed(t))
            for t in range(tokens.categories.tokens)
        ], 1)  # fmt: skip
        codes = torch.where(known_of(tokens, holes) >= 0, known_of(tokens, holes), codes)
        found = _agreeing(tokens, tokens.rows(codes), holes, types)
        assert torch.equal(found[:, kept], known[:, kept])
        assert not bool(found.isnan().any())
        assert torch.equal(tokens.followed(found), found), kept
        if kept in (0, 3, 5):  # which tell all of the others
            assert torch.equal(found[:, family], known[:, family])
        same = {1: "start of hour", 2: "start of month"}.get(kept)
        if same:
            assert torch.equal(component(same, found[:, 0]), known[:, kept])
            # most tokens agree before anything is moved, and what is moved does not crowd at the ends
            agree = component(same, tokens.rows(codes)[:, 0]) == known[:, kept]
            assert float(agree.double().mean()) > (0.8 if kept == 2 else 0.7)
            part, most = (component("day", found[:, 0]), 31) if kept == 2 else (component("minute", found[:, 0]), 60)
            assert float(part.unique(return_counts=True)[1].max()) < 4 * len(found) / most


def test_descriptions_without_lines_are_read_as_they_were() -> None:
    rows, types = table()
    tokens = Tokens.fit(rows, types)
    said = tokens.to_dict()
    old = ("column", "source", "by", "shift", "keys", "values")
    said["derived"] = [{name: one[name] for name in old} for one in said["derived"]]
    again = Transform.from_dict(said)
    drawn = [t.rows(tokens.codes(rows)).nan_to_num() for t in (tokens, again)]  # type: ignore[attr-defined]
    assert torch.equal(*drawn)


def test_a_table_of_such_columns_from_its_file_to_what_is_made_of_it(tmp_path: Path) -> None:
    """Drawn, asked for, filled, and continued with other rows, by a network that has learnt next to nothing."""
    rows, types, _ = lines()

    def written(name: str, rows: Tensor) -> Path:
        texts = [kind.render(rows[:, i].numpy()) for i, kind in enumerate(types)]
        text = "\n".join([",".join(kind.name for kind in types), *map(",".join, zip(*texts, strict=True))])
        (tmp_path / name).write_text(text + "\n", "utf-8")
        return tmp_path / name

    path = written("rows.csv", rows[:500])
    short = ["training.steps=2", "training.cpu=true", "training.precision=float32", "net.width=16", "net.depth=1"]
    for _ in train(Experiment.read("table", [f"data.path={path}", *short]), tmp_path / "run", draws=False):
        pass
    run = Run.load(tmp_path / "run")
    tokens, found = must_be_table(run)
    assert {(found[d.column].name, found[d.source].name) for d in tokens.derived} == {
        *((name, "when") for name in ("hour", "month")),
        *((name, "m") for name in ("km", "left")),
    }

    def agrees(rows: Tensor) -> bool:
        rows = as_written(rows, list(found))
        return torch.equal(tokens.followed(rows).nan_to_num(), rows.nan_to_num())

    assert agrees(torch.cat(list(draw_rows(run, 100))))
    asked = torch.cat(list(draw_rows(run, 100, Where.of("km=5..9, month>=2021-03-01", tokens, found))))
    assert agrees(asked)
    assert 5 <= float(asked[:, 4].min()) <= float(asked[:, 4].max()) <= 9
    holes = rows[~rows.isnan().any(1)][:20].clone()
    holes[::2, 0], holes[1::2, 1], holes[::2, 4], holes[1::2, 3] = (math.nan,) * 4
    filled_in = impute(run, holes, draws=2)
    assert all(agrees(one) for one in filled_in)
    assert torch.equal(torch.where(holes.isnan(), math.nan, filled_in[0]).nan_to_num(), holes.nan_to_num())
    wrong, facts = rows[500:900].clone(), run.about["data"]
    load_as_before(Table(str(written("more.csv", wrong))), facts, tokens)
    wrong[3, 4] += 0.1
    with pytest.raises(InputError, match=r"column 'km' is '.*' in a row, which contradicts 'm'"):
        load_as_before(Table(str(written("wrong.csv", wrong))), facts, tokens)
