"""Tokens that are read in order: what counting says, the network beside it, and the two orders of one model."""

import math
from collections import Counter, defaultdict

import pytest
import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.discrete import TOKEN_STEPPERS, Absorbing, CountedNet, TokenDenoiser, TokenReader, draw_tokens
from ornstein.discrete.bounds import LeftToRight, measured
from ornstein.discrete.counts import Counts
from ornstein.discrete.kernels import Uniform
from ornstein.errors import InputError
from ornstein.experiment.config import Experiment
from ornstein.laws import nets as laws
from ornstein.laws.tokens import law
from ornstein.nets import READERS, TwoWay

K, T, ORDER = 5, 9, 4
NONE = Condition.of(None)


def drawn(n: int, seed: int = 0) -> Tensor:
    """Rows in which low classes are common, so that contexts repeat."""
    return (torch.rand(n, T, generator=torch.Generator().manual_seed(seed)) ** 2 * K).long()


def interpolated(counted: Tensor, row: Tensor, without: tuple[int, int] | None = None) -> Tensor:
    """Witten and Bell's law of each place of a row (T,), by dictionaries; `without` one token of what is counted."""
    seen: list[dict[tuple[int, ...], Counter[int]]] = [defaultdict(Counter) for _ in range(ORDER)]
    for number, each in enumerate(counted.tolist()):
        for i, token in enumerate(each):
            for n in range(min(i, ORDER - 1) + 1):
                if (number, i) != without:
                    seen[n][tuple(each[i - n : i])][token] += 1
    found, read = [], row.tolist()
    for i in range(T):
        p = [1 / K] * K
        for n in range(min(i, ORDER - 1) + 1):
            count = seen[n][tuple(read[i - n : i])]
            if not count.total():
                break
            p = [(count[x] + len(count) * p[x]) / (count.total() + len(count)) for x in range(K)]
        found.append(p)
    return torch.tensor(found)


def reader(counted: Tensor | None = None, size: float = 0.3) -> TokenReader:
    """A small reader, away from its silent start."""
    net = TwoWay(width=16, depth=2, heads_width=8, embedding=8).build((K + 2, T))
    whole = CountedNet(laws.nudged(net, size=size) if size else net, K, ORDER)
    if counted is not None:
        whole.count(counted)
    return TokenReader(whole, Absorbing(), Categories((K,) * T, space=(T,)), (T,))


def test_counts_are_witten_and_bells() -> None:
    counted, asked = drawn(40), drawn(6, seed=1)
    counts = Counts(K, ORDER)
    counts.count(counted)
    for row in asked:
        assert torch.allclose(counts(row[None])[0].exp(), interpolated(counted, row), atol=1e-6)


def test_what_is_left_out_is_as_if_it_had_not_been_counted() -> None:
    counted, counts = drawn(40), Counts(K, ORDER)
    counts.count(counted)
    apart = counts(counted[7:8], counted[7:8])[0].exp()
    for place in range(T):
        expected = interpolated(counted, counted[7], without=(7, place))[place]
        assert torch.allclose(apart[place], expected, atol=1e-6)


def test_a_context_with_a_mask_is_told_by_the_shorter_one() -> None:
    counts = Counts(K, ORDER)
    counts.count(drawn(40))
    row = drawn(1, seed=2)
    hidden, other = row.clone(), row.clone()
    hidden[0, 3], other[0, 2] = K, (other[0, 2] + 1) % K
    other[0, 3] = K
    assert torch.equal(counts(hidden)[0, 4], counts(torch.full_like(row, K))[0, 0])  # nothing beside it is known
    assert torch.equal(counts(hidden)[0, 5], counts(other)[0, 5])  # what lies beyond the mask says nothing


@pytest.mark.parametrize("held", laws.LAWS)
@pytest.mark.parametrize("name", READERS)
def test_networks_that_read_keep_every_law_of_networks(name: str, held: str) -> None:
    laws.LAWS[held](READERS[name](width=32, depth=1, embedding=16))  # type: ignore[call-arg]


def test_a_place_is_told_by_all_others_and_never_by_itself() -> None:
    net = laws.nudged(TwoWay(width=16, depth=2, heads_width=8, embedding=8).build((3, T)), size=0.3)
    x, level = torch.randn(1, 3, T, generator=torch.Generator().manual_seed(0)), torch.zeros(1)
    plain = net(x, level)
    for place in range(T):
        moved = x.clone()
        moved[..., place] += 1.0
        change = (net(moved, level) - plain).abs().amax((0, 1))
        assert float(change[place]) == 0
        assert float(torch.cat([change[:place], change[place + 1 :]]).min()) > 1e-4


def test_one_call_in_order_is_token_after_token() -> None:
    model, codes = reader(drawn(40)), drawn(3, seed=1)
    found, slowly = model.in_order(codes, NONE), TokenDenoiser.in_order(model, codes, NONE)
    assert torch.allclose(found, slowly, atol=1e-5)
    assert float(found.exp().std(0).max()) > 0.05  # rows are told apart
    other = codes.clone()
    other[:, 5:] = (other[:, 5:] + 1) % K
    assert torch.equal(model.in_order(other, NONE)[:, :6], found[:, :6])


def test_an_untrained_reader_is_the_n_gram_and_listens_to_both_sides() -> None:
    counted, row = drawn(40), drawn(1, seed=3)
    model = reader(counted, size=0.0)
    assert torch.allclose(model.in_order(row, NONE)[0].exp(), interpolated(counted, row[0]), atol=1e-5)
    blank = row.clone()
    blank[0, 4] = K
    level = Absorbing().at(0.5)
    found = model.log_probs(blank, level, NONE)[0, 4].exp()
    before = interpolated(counted, row[0])[4]
    after = interpolated(counted.flip(1), row[0].flip(0))[T - 1 - 4]
    alone = torch.bincount(counted.flatten(), minlength=K).float()
    expected = before * after / interpolated(counted, row[0])[0]
    assert torch.allclose(interpolated(counted, row[0])[0], alone / alone.sum(), atol=0.02)
    assert torch.allclose(found, expected / expected.sum(), atol=1e-5)


def test_rows_that_teach_are_left_out_of_the_counts_and_rows_that_measure_are_not() -> None:
    counted = drawn(4)
    model, codes = reader(counted, size=0.0), counted[:1]
    plain = -model.in_order(codes, NONE).gather(-1, codes[..., None]).sum()
    assert float(measured(model, model.vectors(codes)).nats.value) == pytest.approx(float(plain), rel=1e-5)
    taught = LeftToRight(any_order=0.0)(model, model.vectors(codes), None, torch.Generator().manual_seed(0))
    apart = torch.stack([interpolated(counted, codes[0], without=(0, i))[i, codes[0, i]] for i in range(T)])
    assert float(taught) == pytest.approx(-float(apart.log().sum()), rel=1e-4)
    assert float(taught) > float(plain) + 1


def test_both_orders_are_taught_and_measured() -> None:
    """Of the true law both are its entropy; of a reader the mean over orders is another number."""
    true = law(Absorbing())
    codes = torch.multinomial(true.table.flatten(), 2000, True, generator=torch.Generator().manual_seed(0))
    x0 = true.vectors(torch.stack([codes // 3, codes % 3], 1))
    own = -float(true.log_prob(true.codes(x0)).mean())
    for any_order in (0.0, 0.5, 1.0):
        found = LeftToRight(any_order=any_order)(true, x0, None, torch.Generator().manual_seed(1))
        assert float(found.mean()) == pytest.approx(own, abs=5 * float(found.std()) / 2000**0.5 + 1e-6)
    model, rows = reader(drawn(40)), drawn(50, seed=4)
    one, all_orders = (measured(model, model.vectors(rows), in_order=way, draws=32) for way in (True, False))
    assert one.nats.value != pytest.approx(all_orders.nats.value, rel=1e-3)
    assert math.isfinite(all_orders.nats.value)


def test_tokens_are_drawn_from_the_left_each_after_those_before() -> None:
    states = list(draw_tokens(reader(drawn(40)), 3, TOKEN_STEPPERS["left-to-right"](), steps=T, seed=0))
    known = [reader().categories.known(state.x) for state in states]
    for step, there in enumerate(known):
        assert there.tolist() == [[place < step for place in range(T)]] * 3


def test_what_does_not_go_with_reading_is_refused() -> None:
    with pytest.raises(InputError, match=r"left-to-right.*absorbing"):
        LeftToRight().must_suit(Uniform())
    with pytest.raises(InputError, match="masks none"):
        law(Uniform()).in_order(torch.zeros(1, 2, dtype=torch.int64), NONE)
    with pytest.raises(InputError, match="any_order=2"):
        LeftToRight(any_order=2)
    with pytest.raises(InputError, match="sequences"):
        TwoWay().build((1, 8, 8))
    with pytest.raises(InputError, match="does not go with learner"):
        Experiment.read("text", ["data.path=x.txt", "net.name=transformer"])
