"""Columns of a table as tokens: what goes in comes back, and what one column says of another is kept."""

import math

import pytest
import torch
from torch import Tensor

from ornstein.data.before import _fitting
from ornstein.data.calendar import DAY, component
from ornstein.data.dataset import Dataset
from ornstein.data.schema import ColumnType
from ornstein.data.tokens import Tokens
from ornstein.data.transform import Transform
from ornstein.discrete.waves import classes_shown
from ornstein.errors import InputError
from ornstein.experiment.cells import _consistent

N = 4000


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def table() -> tuple[Tensor, list[ColumnType]]:
    """Columns of every kind: a heavy tail in cents, half zeros, holes, words, a code of the word, moments."""
    word = (uniform(N, seed=1) ** 2 * 6).floor()
    money = (torch.exp(2 + 1.5 * normal(N, seed=2)) * 100).round() / 100
    spiked = torch.where(uniform(N, seed=3) < 0.5, 0.0, 50 * uniform(N, seed=4))
    holes = torch.where(uniform(N, seed=5) < 0.2, math.nan, normal(N, seed=6))
    when = 1_600_002_000 - 1_600_002_000 % 3600 + (uniform(N, seed=7) * 400 * 24).floor() * 3600
    weekend = (component("weekday", when) >= 5).double()
    columns = [word, money, spiked, holes, 10 * word + 3, when, weekend, torch.zeros(N), torch.full((N,), math.nan)]
    types = [
        ColumnType("word", "category", levels=tuple("abcdef")),
        ColumnType("money", "number", decimals=2, format=".2f"),
        ColumnType("spiked", "number", format="repr"),
        ColumnType("holes", "number", format="repr", missing=("",)),
        ColumnType("code", "integer", decimals=0, format="short"),
        ColumnType("when", "date", format="%Y-%m-%d %H:%M", step=3600),
        ColumnType("weekend", "boolean", levels=("no", "yes")),
        ColumnType("always", "constant", levels=("so",)),
        ColumnType("name", "identifier"),
    ]
    return torch.stack([c.double() for c in columns], 1), types


@pytest.fixture(scope="module")
def fitted() -> tuple[Tensor, Tokens]:
    rows, types = table()
    return rows, Tokens.fit(rows, types)


def test_rows_come_back_in_their_own_cells(fitted: tuple[Tensor, Tokens]) -> None:
    rows, tokens = fitted
    z = tokens.forward(rows)
    back = tokens.inverse(z)
    assert z.shape == (N, *tokens.shape((9,)))
    assert torch.equal(tokens.forward(back), z)
    for exact in (0, 4, 6, 7):
        assert torch.equal(back[:, exact], rows[:, exact])
    assert torch.equal(back.isnan(), rows.isnan())
    # a number of two decimals comes back as one, and lies as near as its cell is wide
    assert torch.equal((back[:, 1] * 100).round() / 100, back[:, 1])
    assert float((back[:, 1] - rows[:, 1]).abs().median()) < 0.02 * float(rows[:, 1].median())


def test_a_spike_stays_a_spike_and_a_bound_is_not_crossed(fitted: tuple[Tensor, Tokens]) -> None:
    rows, tokens = fitted
    back = tokens.inverse(tokens.forward(rows))
    assert torch.equal(back[:, 2] == 0, rows[:, 2] == 0)
    for column in (1, 2, 3):
        known = ~rows[:, column].isnan()
        assert float(back[known, column].min()) >= float(rows[known, column].min())
        assert float(back[known, column].max()) <= float(rows[known, column].max())


GAINS = (ColumnType("gain", "integer", decimals=0, format="short"),)


def test_where_a_value_prevails_the_other_rows_fill_the_bins_and_are_told_apart_like_words() -> None:
    gains = torch.arange(1.0, 121.0).double() ** 2
    for zeros, ordered in ((4799, True), (4801, False)):  # beside 4,800 rows of other values
        values = torch.cat([torch.zeros(zeros).double(), gains.repeat(40)])
        tokens = Tokens.fit(values[:, None], GAINS)
        one = tokens.coded[0]
        assert one.ordered == ordered
        # 4,800 rows in shares of a 48th of all rows, or of those that are not zero
        assert len(one.bins) == pytest.approx(25 if ordered else 49, abs=1)
        assert bool(tokens.categories.along[0]) == ordered
        assert torch.equal(tokens.inverse(tokens.forward(values[:, None]))[:, 0], values)
        if not ordered:
            assert len(classes_shown(tokens.categories)) == tokens.categories.width
        # of a run that goes on with other rows: these are numbers, and one beyond all is said
        assert _fitting(values[:, None] + 1e9 * (values[:, None] == 4.0), GAINS, tokens).startswith("40 values beyond")
    few = Tokens.fit((values > 0).double()[:, None] * 7, [ColumnType("sold", "integer", decimals=0, format="short")])
    assert not few.coded[0].ordered


def test_columns_that_another_determines_are_looked_up(fitted: tuple[Tensor, Tokens]) -> None:
    _, tokens = fitted
    assert {(d.column, d.source, d.by) for d in tokens.derived} == {(4, 0, "value"), (6, 5, "weekday")}
    drawn = tokens.rows(torch.stack([torch.randint(k, (500,)) for k in tokens.categories.sizes], 1))
    assert torch.equal(drawn[:, 4], 10 * drawn[:, 0] + 3)
    assert torch.equal(drawn[:, 6], (component("weekday", drawn[:, 5]) >= 5).double())
    assert bool((drawn[:, 5] % 3600 == 0).all())


def test_what_follows_forbids_classes_where_a_column_is_one_token(fitted: tuple[Tensor, Tokens]) -> None:
    """The code tells the word; the weekend forbids nothing among moments, which are coarse and fine in two tokens."""
    rows, tokens = fitted
    allowed = _consistent(tokens, rows[:20], table()[1])
    word, when = (next(i for i, one in enumerate(tokens.coded) if one.column == column) for column in (0, 5))
    assert [len(tokens.coded[i].sizes) for i in (word, when)] == [1, 2]
    block = tokens.categories.block(tokens.places[word].start)
    assert torch.equal(allowed[:, block].argmax(1), tokens.codes(rows[:20])[:, tokens.places[word].start])
    assert torch.equal(allowed[:, block].sum(1), torch.ones(20).double())
    allowed[:, block] = 1
    assert bool((allowed == 1).all())
    number = torch.arange(1000.0).double() % 100
    rows = torch.stack([number, 7 * number % 11], 1)
    whole = [ColumnType(name, "integer", decimals=0, format="short") for name in "ab"]
    coarse = Tokens.fit(rows, whole)
    assert (len(coarse.derived), len(coarse.coded[0].sizes)) == (1, 2)
    assert bool((_consistent(coarse, rows[:20], whole) == 1).all())


def test_a_relation_that_does_not_always_hold_is_none() -> None:
    rows, types = table()
    rows[7, 4] += 1
    assert not any(d.column == 4 for d in Tokens.fit(rows, types).derived)


def test_few_rows_of_each_value_make_no_relation() -> None:
    rows, types = table()
    both = [rows[:50, i] for i in (0, 4)]
    assert len(both[0].unique()) * 10 > 50
    assert not Tokens.fit(torch.stack(both, 1), [types[0], types[4]]).derived


def test_places_within_a_cell_are_even_and_belong_to_the_row(fitted: tuple[Tensor, Tokens]) -> None:
    rows, tokens = fitted
    back = tokens.inverse(tokens.forward(rows))
    assert torch.equal(tokens.inverse(tokens.forward(rows[100:110])).nan_to_num(), back[100:110].nan_to_num())
    one = next(c for c in tokens.coded if c.column == 2)
    cell = one.cells(rows[:, 2])
    low, high = (ends[cell] for ends in one.ends)
    wide = high > low
    place = ((back[:, 2] - low) / (high - low))[wide].sort().values
    # Kolmogorov and Smirnov at one in a thousand
    assert float((place - (torch.arange(len(place)) + 0.5) / len(place)).abs().max()) < 1.95 / len(place) ** 0.5


def test_a_cell_of_decimals_holds_as_many_values_as_its_width_says(fitted: tuple[Tensor, Tokens]) -> None:
    _, tokens = fitted
    one = next(c for c in tokens.coded if c.column == 1)
    for cell in range(0, len(one.low), 7):
        count = int(one.points[cell])
        places = (torch.arange(3 * count, dtype=torch.float64) + 0.5) / (3 * count)
        held, each = one.values(torch.full((3 * count,), cell), places).unique(return_counts=True)
        assert float(held[0]) == one.low[cell]
        assert float(held[-1]) == one.high[cell]
        assert each.tolist() == [3] * count  # each as likely


def test_what_is_not_known_has_no_class_unless_it_was_learnt() -> None:
    rows, types = table()
    tokens = Tokens.fit(rows, types)
    few = rows[:2].clone()
    few[0, 1], few[1, 3] = math.nan, math.nan
    codes = tokens.codes(few)
    (money, *_), (holes, *_) = (list(tokens.tokens_of(c)) for c in (1, 3))
    assert int(codes[0, money]) == -1
    assert int(codes[1, holes]) == tokens.categories.sizes[holes] - 1


def test_shares_of_a_range_are_of_each_cell(fitted: tuple[Tensor, Tokens]) -> None:
    rows, tokens = fitted
    for column in (1, 2):
        one = next(c for c in tokens.coded if c.column == column)
        low, high = (float(q) for q in rows[:, column].quantile(torch.tensor([0.3, 0.8], dtype=torch.float64)))
        share = one.inside(low, high)
        cell = one.cells(rows[:, column])
        for k in cell.unique().tolist():
            drawn = one.values(torch.full((2000,), k), uniform(2000, seed=k))
            met = ((drawn >= low) & (drawn <= high)).double().mean()
            assert float(met) == pytest.approx(float(share[k]), abs=0.06)
            if 0 < float(share[k]) < 1:
                within = one.values(torch.full((50,), k), uniform(50), [(low, high)])
                assert bool(((within >= low) & (within <= high)).all())


def test_of_two_spans_in_one_cell_each_gets_its_share(fitted: tuple[Tensor, Tokens]) -> None:
    _, tokens = fitted
    for column in (1, 2):
        one = next(c for c in tokens.coded if c.column == column)
        cell = int((one.ends[1] - one.ends[0]).argmax())  # the widest
        low, wide = one.low[cell], one.high[cell] - one.low[cell]
        spans = [(low + 0.1 * wide, low + 0.2 * wide), (low + 0.6 * wide, low + 0.9 * wide)]
        found = one.values(torch.full((4000,), cell), uniform(4000), spans)
        first = (found >= spans[0][0]) & (found <= spans[0][1])
        second = (found >= spans[1][0]) & (found <= spans[1][1])
        assert bool((first | second).all())
        assert float(first.double().mean()) == pytest.approx(0.25, abs=0.04)


def test_it_is_written_and_read_again(fitted: tuple[Tensor, Tokens]) -> None:
    _, tokens = fitted
    again = Transform.from_dict(tokens.to_dict())
    assert again == tokens


def test_a_table_without_anything_to_learn_is_refused() -> None:
    with pytest.raises(InputError, match="nothing to learn"):
        Tokens.fit(torch.ones(10, 1, dtype=torch.float64), [ColumnType("a", "integer", decimals=0, format="short")])


def test_the_calendar_agrees_with_pythons() -> None:
    from datetime import UTC, datetime

    seconds = (uniform(300) * 4e9 - 1e9).floor()
    for s in seconds.tolist():
        at, one = datetime.fromtimestamp(s, UTC), torch.tensor([s], dtype=torch.float64)
        found = {name: float(component(name, one)) for name in ("year", "month", "day", "hour", "minute", "weekday")}
        assert found == {"year": at.year, "month": at.month, "day": at.day, "hour": at.hour, "minute": at.minute,
                         "weekday": at.weekday()}  # fmt: skip
        assert float(component("date", one)) * DAY == s - s % DAY


def test_batches_of_a_table_are_its_rows_encoded() -> None:
    """The rows are encoded once, and a batch holds their vectors."""
    rows, types = table()
    tokens = Tokens.fit(rows, types)
    data = Dataset("things", rows[:1500], rows[1500:], {}, "table", tokens, columns=tuple(types))
    batches = [data.batch(step, 500, seed=3)[0] for step in range(3)]
    found, expected = (x.unique(dim=0, return_counts=True) for x in (torch.cat(batches), tokens.forward(rows[:1500])))
    assert all(map(torch.equal, found, expected))
