"""Measures of tables: against closed forms, and against faults planted in honest draws."""

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads as trees_threads

from ornstein.errors import InputError
from ornstein.metrics import related, table_report
from ornstein.metrics.boosted import NetworkTest, TreeTest, predicts
from ornstein.metrics.margins import Bins, columns_apart, numbers_apart, shares_apart
from ornstein.metrics.records import auc, closest_records
from ornstein.metrics.table import _each, _targets

NAN = math.nan
#: a word, a word that follows it, a heavy tail with a spike and holes, a number that follows it, another that nothing
#: tells, a rare word
WORDS = (True, True, False, False, False, True)
NAMES = ["sort", "grade", "price", "rooms", "weight", "rare"]


def seeded(seed: Any = 0) -> Any:
    return torch.Generator().manual_seed(seed)


def table(n: Any, seed: Any) -> Any:
    """Rows of a law of mixed columns."""
    g = seeded(seed)
    sort = torch.multinomial(torch.tensor([0.5, 0.3, 0.2]), n, True, generator=g).double()
    grade = torch.where(torch.rand(n, generator=g) < 0.8, sort, torch.randint(4, (n,), generator=g).double())
    price = (1.5 * torch.randn(n, generator=g).double() + sort).exp()
    rooms = (price.log() + 0.5 * torch.randn(n, generator=g)).round()
    price = torch.where(torch.rand(n, generator=g) < 0.2, 0.0, price)
    price = torch.where(torch.rand(n, generator=g) < 0.1 + 0.2 * (sort == 1), NAN, price)
    weight = torch.randn(n, generator=g).double()
    rare = torch.multinomial(1 / torch.arange(1, 31).double(), n, True, generator=g).double()
    return torch.stack([sort, grade, price, rooms, weight, rare], 1)


@pytest.fixture(scope="module")
def real() -> Any:
    return table(2400, 1), table(800, 2)


def measured(samples: Any, real: Any, progress: Any = None) -> Any:
    train, heldout = real
    return table_report(samples, train, heldout, WORDS, seeded(), names=NAMES, targets=[3], progress=progress)


def seen(samples: Any, real: Any) -> Any:
    """What says "differs", of the cheap measures; and what two judges that learn make of it."""
    sets = (samples, *real)
    columns = _each(lambda x, y: columns_apart(x, y, WORDS), sets, seeded(), 20, 800)
    bins = Bins.of(real[0], WORDS)
    pair = _each(lambda x, y: bins.pairs_apart(x, y)[2, 3, None], sets, seeded(), 20, 800)[0]
    return (
        [name for name, score in zip(NAMES, columns[:-1], strict=True) if score.verdict == "differs"],
        pair.verdict == "differs",
        TreeTest(WORDS, folds=2)(samples, real[1], seeded()),
        predicts(samples, real[1], 3, WORDS, 0),
    )


def test_distances_of_columns_have_their_closed_forms() -> None:
    x, y = torch.tensor([0.0, 0.0, 1.0, NAN]), torch.tensor([0.0, 1.0, 2.0, 2.0])
    assert shares_apart(x, y) == pytest.approx((0.25 + 0 + 0.5 + 0.25) / 2)
    a, b = torch.randn(300, generator=seeded()).double(), torch.randn(170, generator=seeded(1)).double() + 0.3
    assert numbers_apart(a, b) == pytest.approx(ks_2samp(a, b).statistic)
    # a missing cell is an atom: 30 % of them more, and nothing else, is a distance of 0.3
    holes = torch.where(torch.arange(300) < 90, NAN, a)
    assert numbers_apart(holes, a) == pytest.approx(0.3, abs=0.05)
    assert numbers_apart(torch.full((9,), NAN), torch.full((4,), NAN)) == 0
    assert columns_apart(a[:, None], a.flip(0)[:, None], [False]).item() == 0


def test_association_is_cramers_v_for_words_and_for_numbers_and_sees_what_turned_round() -> None:
    n = 40_000
    g = seeded()
    a = torch.randint(3, (n,), generator=g).double()
    kept = torch.rand(n, generator=g) < 0.6
    b = torch.where(kept, a, torch.randint(3, (n,), generator=g).double())
    c = torch.randn(n, generator=g).double()
    rows = torch.stack([a, b, c, c.square(), -c.exp()], 1)
    words = (True, True, False, False, False)
    bins = Bins.of(rows, words)
    v = bins.association(rows)
    assert v[0, 1] == pytest.approx(0.6, abs=0.02)  # a copy with probability 0.6, else independent
    assert v[0, 2] < 0.03
    assert v[2, 3] > 0.5  # no rank correlation at all
    assert v[2, 4] > 0.95
    assert [pair[:2] for pair in related(rows, words, 2)] == [(2, 4), (3, 4)] or related(rows, words, 1)[0][:2] == (
        2,
        4,
    )
    # few rows do not make a relation
    few = torch.randint(10, (60, 2), generator=g).double()
    assert Bins.of(few, (True, True)).association(few)[0, 1] < 0.25
    # the same strength, and the opposite relation
    turned = torch.stack([a, 2 - b, c, c.square(), -c.exp()], 1)
    assert bins.association(turned)[0, 1] == pytest.approx(float(v[0, 1]), abs=1e-6)
    assert bins.pairs_apart(rows, turned)[0, 1] > 0.5
    # against independence the distance is V itself
    alone = torch.stack([a, b[torch.randperm(n, generator=g)]], 1)
    assert Bins.of(alone, (True, True)).pairs_apart(rows[:, :2], alone)[0, 1] == pytest.approx(0.6, abs=0.02)


def test_auc_is_that_of_the_ranks() -> None:
    x, y = (torch.randn(99, generator=seeded(s)).mul(3).round() for s in (0, 1))
    label = [1] * 99 + [0] * 99
    assert auc(x, y) == pytest.approx(roc_auc_score(label, torch.cat([x, y])))


def threads() -> set[int]:
    """How many threads trees, torch, and MKL inside torch, would take."""
    mkl = re.search(r"mkl_get_max_threads\(\) : (\d+)", torch.__config__.parallel_info())
    return {trees_threads(), torch.get_num_threads(), *([int(mkl[1])] if mkl else [])}


def test_nobody_is_asked_for_a_column_that_another_determines() -> None:
    """A code and its many names determine each other; a date its season; all else may be asked for."""
    g, n = seeded(5), 4000
    code = (torch.rand(n, generator=g).square() * 60).floor().double()
    date = torch.randint(300, (n,), generator=g).double()
    wage = code / 20 + torch.randn(n, generator=g).double()
    kind = (wage + torch.randn(n, generator=g) > 1.5).double()
    rows = torch.stack([code, code * 7 % 61, date, (date / 90).floor(), wage, kind, 1 - kind], 1)
    words = (True, True, False, True, False, True, True)

    def asked(x: torch.Tensor, words: Sequence[bool]) -> list[int]:
        return _targets(Bins.of(x, words).association(x), x)

    assert sorted(asked(rows, words)) == [2, 4]
    assert set(asked(rows[:, [0, 2, 4, 5]], (True, False, False, True))) == {0, 1, 2, 3}
    kind[0] = math.nan
    assert asked(torch.stack([kind, 1 - kind], 1), (True, True)) == [1]  # something must be asked


def test_honest_draws_match_in_every_row(real: Any) -> None:
    by: set[int] = set()
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        honest = measured(table(800, 3), real, lambda name: by.update(threads()))
        # threads that wait for each other take many times the processor seconds on a busy machine
        assert (by, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)
    assert list(honest.rows) == ["trees", "network", "columns", "pairs", "predict rooms", "closest record",
                                 "membership", "copies"]  # fmt: skip
    for name, score in honest.rows.items():
        assert score.verdict in ("matches", "fresh", "close"), (name, score)
    for score in (*honest.columns.values(), *honest.pairs.values()):
        assert score.verdict != "differs"
    assert abs(honest.rows["trees"].value - 0.5) < 0.05
    assert honest.rows["closest record"].spread == pytest.approx(0.5 / 800**0.5, rel=0.5)
    told = json.loads(json.dumps(honest.to_dict(), allow_nan=False))
    assert len(told["columns"]) == 6
    assert len(told["pairs"]) == 15
    assert "rank a draw above a held-out row" in honest.table()


def shuffled(x: Any) -> Any:
    x[:, 3] = x[torch.randperm(len(x), generator=seeded(7)), 3]


def flattened(x: Any) -> Any:
    x[:, 4] = x[:, 4].mean()


def cut(x: Any) -> Any:
    x[:, 2] = x[:, 2].clamp(max=float(x[:, 2].nanquantile(0.85)))


def filled(x: Any) -> Any:
    x[:, 2] = x[:, 2].nan_to_num(nan=5.0)


def renamed(x: Any) -> Any:
    x[:, 5] = torch.where(x[:, 5] == 0, 77.0, x[:, 5])  # a word that no real row has


#: what is planted -> columns that must differ, whether price and rooms are related otherwise, whether trees tell the
#: draws from real rows, whether the number of rooms is still learnt
FAULTS = {
    None: ([], False, False, True),
    shuffled: ([], True, True, False),
    flattened: (["weight"], False, True, True),
    cut: (["price"], True, True, True),
    filled: (["price"], False, True, True),
    renamed: (["rare"], False, True, True),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: getattr(fault, "__name__", "none"))
def test_a_planted_fault_moves_what_should_see_it_and_nothing_else(fault: Any, real: Any) -> None:
    samples = table(800, 3)
    if fault is not None:
        fault(samples)
    columns, pair, told, learnt = seen(samples, real)
    assert (columns, pair, told > 0.56, learnt > 0.3) == FAULTS[fault], (told, learnt)


def test_planted_copies_are_told_and_nothing_else_is(real: Any) -> None:
    train, heldout = real
    samples = torch.cat([table(320, 3), train[:480]])
    found = closest_records(samples, train, heldout, WORDS, seeded())
    assert found.copies_all == pytest.approx(0.6)
    assert found.heldout_copies == 0
    # 800 of the 2,400 training rows are laid out, so a third of the copies is met
    assert found.copies == pytest.approx(0.6 / 3, abs=0.04)
    assert found.nearer - 0.5 > 3 * found.nearer_spread
    assert found.membership - 0.5 > 3 * found.membership_spread


def test_the_closest_record_of_honest_draws_is_of_either_kind_whatever_the_sizes() -> None:
    """Ten times as many training rows would have the nearest one ten times as often."""
    shares = []
    for seed in range(5):
        found = closest_records(
            table(300, 100 + seed), table(3000, 200 + seed), table(300, 300 + seed), WORDS, seeded()
        )
        assert found.rows == 300
        shares.append((found.nearer - 0.5) / found.nearer_spread)
    assert all(abs(share) < 3.5 for share in shares)
    assert abs(sum(shares)) / 5**0.5 < 3


def test_a_table_of_few_different_rows_is_no_copy_of_itself() -> None:
    """Where all rows are common, draws are training rows and held-out rows alike."""
    x, y, z = (torch.randint(3, (400, 2), generator=seeded(s)).double() for s in range(3))
    found = closest_records(x, y, z, (True, True), seeded())
    assert (found.copies, found.copies_heldout, found.nearer) == (1.0, 1.0, 0.5)


def test_missing_cells_are_a_place_of_their_own() -> None:
    holes = torch.tensor([[NAN, 1.0], [2.0, NAN]])
    others = torch.tensor([[1.0, 1.0], [3.0, 0.0], [2.5, 0.0]])
    found = closest_records(holes, holes, others, (False, True), seeded())
    assert found.copies == 1
    assert found.nearer == 1


def test_what_trees_predict_is_what_others_would_say() -> None:
    rows, heldout = table(1500, 5), table(1500, 6)
    noise = 0.5**2 + 1 / 12
    told = predicts(rows, heldout, 3, WORDS, 0)
    # a fifth of the prices are noughts and some are holes: what is left is told but for the noise
    assert 0.3 < told < 1 - noise / float(heldout[:, 3].var())
    assert predicts(rows, heldout, 4, WORDS, 0) < 0.1  # nothing tells it
    assert predicts(rows, heldout, 1, WORDS, 0) > 0.8
    rows[:, 1] = 3.0
    assert predicts(rows, heldout, 1, WORDS, 0) == 0.5  # one word teaches none


def test_the_same_seed_gives_the_same_figures(real: Any) -> None:
    samples = table(200, 3)
    for test in (TreeTest(WORDS, folds=2), NetworkTest(WORDS, real[0])):
        assert test(samples, real[1], seeded()) == test(samples, real[1], seeded())


def test_a_network_tells_words_holes_and_spikes(real: Any) -> None:
    told = {}
    for fault in (None, flattened, filled, renamed):
        samples = table(800, 3)
        if fault is not None:
            fault(samples)
        told[fault] = NetworkTest(WORDS, real[0])(samples, real[1], seeded())
    assert abs(told.pop(None) - 0.5) < 0.05
    assert min(told.values()) > 0.57


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        (torch.zeros(5, 3), (True, False), "has shape"),
        (torch.tensor([[0.5]] * 9), (True,), "whole"),
        (torch.tensor([[math.inf]] * 9), (False,), "infinite"),
        (torch.tensor([[1.0]] * 9), (False,), "no column"),
    ],
)
def test_what_is_no_table_is_refused(rows: Any, words: Any, said: Any) -> None:
    with pytest.raises(InputError, match=said):
        table_report(rows, rows, rows, words, seeded())
