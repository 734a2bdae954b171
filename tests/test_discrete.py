"""Masked tokens, held to a law of few tokens that is known in closed form."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ornstein.core.categories import Categories
from ornstein.core.condition import Condition
from ornstein.core.learner import Problem
from ornstein.core.walk import end
from ornstein.discrete import (
    Absorbing,
    AnyOrder,
    JointTable,
    MaskedColumns,
    MaskedCrossEntropy,
    MaskedNet,
    bound,
    constrained,
    unmask,
)
from ornstein.discrete.details import Trusted, kept_back
from ornstein.discrete.objective import next_weights, outline_first, ranks, token_nats
from ornstein.discrete.waves import PLACES, Placed, across, classes_shown
from ornstein.errors import InputError
from ornstein.nets import MLP, NetConfig, Number, Transformer
from ornstein.nets.contract import Part

SHAPE = (3, 2, 4)


@pytest.fixture(scope="module")
def law() -> JointTable:
    """Three dependent tokens of which the last refines the first."""
    table = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    return JointTable(table / table.sum(), Absorbing(), (-1, -1, 0))


def frequencies(codes: Tensor) -> Tensor:
    flat = (codes[:, 0] * SHAPE[1] + codes[:, 1]) * SHAPE[2] + codes[:, 2]
    return torch.bincount(flat, minlength=math.prod(SHAPE)).double().reshape(SHAPE) / len(codes)


def agrees(found: Tensor, expected: Tensor, n: int) -> None:
    """Frequencies of n draws, within five standard errors of each probability."""
    error = (expected * (1 - expected) / n).sqrt()
    assert bool(((found - expected).abs() <= 5 * error + 1e-12).all())


def rows(law: JointTable) -> Tensor:
    """Every row there is, (24, 3)."""
    return torch.cartesian_prod(*(torch.arange(k) for k in law.table.shape))


def test_vectors_and_classes_are_each_others_inverse() -> None:
    categories = Categories((3, 1, 4), (-1, 0, -1))
    codes = torch.tensor([[0, 0, 3], [2, -1, 1], [-1, -1, -1]])
    x = categories.one_hot(codes)
    assert x.shape == (3, 8)
    assert torch.equal(categories.codes(x), codes)
    assert torch.equal(categories.known(x), codes >= 0)
    logits = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(categories.sums(categories.log_softmax(logits).exp()), torch.ones(5, 3))


def test_places_along_a_column_add_up_over_its_tokens() -> None:
    categories = Categories((2, 2, 3), (-1, 0, -1), ((-0.5, 0.5), (-0.25, 0.25, -0.1, 0.1), ()))
    x = categories.one_hot(torch.tensor([[0, 1, 2], [1, 0, 0], [1, -1, 1], [-1, -1, -1]]))
    place, known = categories.places(x)
    assert torch.allclose(place[:, 0], torch.tensor([-0.25, 0.4, 0.5, 0.0]))
    assert known[:, 0].tolist() == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("after", [(0,), (-1, 2, -1), (-1, 0, 0)])
def test_orders_that_are_none_are_refused(after: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="after"):
        Categories((2,) * 3 if len(after) == 3 else (2,), after)


def test_places_that_do_not_rise_are_refused_but_for_what_is_missing() -> None:
    assert Categories((4, 2, 2), (-1, -1, 1), ((-0.5, 0.0, 0.5, 0.0), (0.0, 0.0), ())).placed == (3, 1, 0)
    with pytest.raises(InputError, match=r"along=.* must rise"):
        Categories((3,), along=((0.5, 0.0, -0.5),))


def test_classes_that_are_not_there_have_no_probability() -> None:
    """Of a token that refines one of three classes, with three, one and two classes of its own."""
    categories = Categories((3, 3, 2), (-1, 0, -1), within=((), (3, 1, 2), ()))
    net = Placed(MLP(width=8, depth=1).build, categories, {})
    for p in net.parameters():
        torch.nn.init.normal_(p, 0.0, 1.0, generator=torch.Generator().manual_seed(0))
    model = MaskedNet(net, Absorbing(), categories)
    told = model.log_probs(
        categories.one_hot(torch.tensor([[0, -1, -1], [1, -1, 0], [2, -1, -1], [-1, -1, 1]])), Condition()
    )
    refining = told[:, categories.block(1)].exp()
    assert ((refining > 0).long() @ torch.tensor([1, 2, 4])).tolist() == [7, 1, 3, 7]
    assert torch.allclose(categories.sums(told.exp()), torch.ones(4, 3))


@pytest.mark.parametrize(
    "within", [((1, 1, 1), (), ()), ((), (1, 1), ()), ((), (0, 1, 2), ()), ((), (1, 2, 4), ())], ids=str
)
def test_numbers_of_classes_that_cannot_be_are_refused(within: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(InputError, match="within="):
        Categories((3, 3, 2), (-1, 0, -1), within=within)


def test_orders_of_cells_are_uniform_and_cells_come_whole() -> None:
    categories = Categories((2, 2, 2, 2, 2), (-1, 0, -1, 2, -1))
    order = ranks(categories, torch.rand(60_000, 5, generator=torch.Generator().manual_seed(0)))
    for first, second in ((0, 1), (2, 3)):
        assert torch.equal(order[:, second], order[:, first] + 1)
    _, counts = (order * torch.tensor([625, 125, 25, 5, 1])).sum(1).unique(return_counts=True)
    assert len(counts) == 6
    assert bool(((counts - 10_000).abs() < 5 * 10_000**0.5).all())


def test_the_order_of_the_columns_has_the_outline_first() -> None:
    categories = Categories((2, 2, 2, 2), (-1, 0, -1, -1))
    assert outline_first(categories, torch.zeros(1)).tolist() == [0, 3, 1, 2]


def test_the_chance_of_each_token_to_be_next_is_that_in_random_orders() -> None:
    categories = Categories((2, 2, 2, 2), (-1, 0, -1, -1))
    order = ranks(categories, torch.rand(100_000, 4, generator=torch.Generator().manual_seed(0)))
    known = order < 1
    for mask in known.unique(dim=0):
        these = (known == mask).all(1)
        follows = (order[these] == 1).double().mean(0)
        expected = next_weights(categories, mask[None])[0].double()
        assert torch.allclose(follows, expected, atol=5 * 0.5 / int(these.sum()) ** 0.5)


@pytest.mark.parametrize("ordered", [0.0, 0.5, 1.0])
def test_the_loss_of_the_true_law_is_its_entropy(law: JointTable, ordered: float) -> None:
    codes = rows(law)
    weight = law.log_prob(codes).exp()
    entropy = float(-(weight * law.log_prob(codes)).sum())
    # every order and every place, by many throws: the mean over rows is exact
    x0 = law.categories.one_hot(codes).double()
    dice = torch.Generator().manual_seed(0)
    losses = torch.stack([MaskedCrossEntropy(ordered)(law, x0, None, dice).double() for _ in range(800)])
    found = (losses * weight).sum(1)
    assert float(found.mean()) == pytest.approx(entropy, abs=5 * float(found.std()) / 800**0.5)


def test_another_law_has_a_larger_loss_by_their_divergence(law: JointTable) -> None:
    other = JointTable(torch.full(SHAPE, 1 / 24, dtype=torch.float64), Absorbing(), (-1, -1, 0))
    codes = rows(law)
    weight = law.log_prob(codes).exp()
    dice = torch.Generator().manual_seed(0)
    x0 = law.categories.one_hot(codes).double()
    losses = torch.stack([MaskedCrossEntropy()(other, x0, None, dice).double() for _ in range(400)])
    found = (losses * weight).sum(1)
    assert float(found.mean()) == pytest.approx(math.log(24), abs=5 * float(found.std()) / 400**0.5 + 1e-6)


def test_the_bound_of_the_true_law_is_the_log_probability_in_every_order(law: JointTable) -> None:
    codes = rows(law)
    found, error = bound(law, law.categories.one_hot(codes).double(), torch.arange(len(codes)), orders=3)
    assert torch.allclose(found, law.log_prob(codes), atol=1e-6)
    assert float(error.max()) < 1e-6


def test_what_is_not_known_of_a_row_is_integrated_out(law: JointTable) -> None:
    codes = rows(law).clone()
    codes[:, 1] = -1
    found, _ = bound(law, law.categories.one_hot(codes).double(), torch.arange(len(codes)), orders=2)
    assert torch.allclose(found, law.log_prob(codes), atol=1e-6)


@pytest.mark.parametrize("order", ["random", "columns"])
def test_one_token_a_step_draws_the_law_itself(law: JointTable, order: str) -> None:
    n = 20_000
    last = end(unmask(law, n, AnyOrder(order), seed=3))
    assert last.calls == 3
    agrees(frequencies(law.categories.codes(last.x)), law.table, n)


def test_tokens_of_one_step_are_drawn_apart_and_their_refinements_given_them(law: JointTable) -> None:
    n = 20_000
    codes = law.categories.codes(end(unmask(law, n, AnyOrder(), steps=1, seed=3)).x)
    apart = law.table.sum((1, 2))[:, None, None] * law.table.sum((0, 2))[None, :, None]
    agrees(frequencies(codes), apart * law.table / law.table.sum(2, keepdim=True), n)


def test_a_row_does_not_depend_on_its_batch(law: JointTable) -> None:
    seeds = torch.arange(7) + 100
    together = end(unmask(law, 7, AnyOrder(), seeds=seeds)).x
    alone = torch.cat([end(unmask(law, 1, AnyOrder(), seeds=seeds[i : i + 1])).x for i in range(7)])
    assert torch.equal(together, alone)


def test_what_is_known_stays_and_the_rest_is_drawn_given_it(law: JointTable) -> None:
    n = 20_000
    known = torch.tensor([[-1, 1, -1]]).expand(n, 3)
    last = end(unmask(law, n, AnyOrder(), seed=5, x=law.categories.one_hot(known)))
    codes = law.categories.codes(last.x)
    assert bool((codes[:, 1] == 1).all())
    assert last.calls == 2
    given = law.table[:, 1] / law.table[:, 1].sum()
    agrees(frequencies(codes)[:, 1], given, n)


def test_classes_that_are_not_allowed_are_not_drawn(law: JointTable) -> None:
    allowed = torch.ones(9)
    allowed[1] = 0.0
    codes = law.categories.codes(end(unmask(law, 500, AnyOrder(), seed=0, allowed=allowed)).x)
    assert not bool((codes[:, 0] == 1).any())


def test_sets_are_drawn_from_exactly(law: JointTable) -> None:
    # a half of class 0 of the second token counts; what refines the first may be what depends on the first
    within = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [0.25, 1, 1, 1]])
    sets = {0: torch.tensor([1.0, 0.0, 1.0]), 1: torch.tensor([0.5, 1.0]), 2: within}
    n = 20_000
    x = constrained(law, torch.zeros(n, 9), sets, torch.arange(n))
    wanted = law.table * sets[0][:, None, None] * sets[1][None, :, None] * within[:, None, :]
    agrees(frequencies(law.categories.codes(x)), wanted / wanted.sum(), n)


def test_sets_that_never_meet_are_refused(law: JointTable) -> None:
    table = torch.zeros(2, 2, dtype=torch.float64)
    table[0, 0] = table[1, 1] = 0.5
    never = JointTable(table, Absorbing())
    sets = {0: torch.tensor([1.0, 0.0]), 1: torch.tensor([0.0, 1.0])}
    with pytest.raises(InputError, match="too rare"):
        constrained(never, torch.zeros(2, 4), sets, torch.arange(2))


def test_a_network_learns_the_law(law: JointTable) -> None:
    categories = replace(law.categories, along=((), (), ()))
    net = Placed(MLP(width=64, depth=1).build, categories, {})
    model = MaskedNet(net, Absorbing(), categories)
    codes = rows(law)
    weight = law.log_prob(codes).exp()
    dice = torch.Generator().manual_seed(0)
    adam = torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(300):
        adam.param_groups[0]["lr"] = 1e-2 * (1 - step / 300)
        x0 = categories.one_hot(codes[torch.multinomial(weight, 512, True, generator=dice)])
        adam.zero_grad()
        MaskedCrossEntropy()(model, x0, None, dice).mean().backward()
        adam.step()
    known = categories.one_hot(torch.tensor([[-1, -1, -1], [2, -1, -1], [-1, 1, -1], [0, 1, -1]]))
    asked = categories.spread(next_weights(categories, categories.known(known)) > 0)  # what could be drawn next
    with torch.no_grad():
        wrong = (model(known, 0.5).x0 - law(known, 0.5).x0)[asked]
        shown = categories.spread(categories.known(known))
        assert torch.equal(model(known, 0.5).x0[shown], known[shown])
    assert len(wrong) > 10
    assert float(wrong.abs().max()) < 0.05


def test_waves_run_across_two_columns_each_and_all_pairs_have_as_many() -> None:
    frequencies, phases = across(4, 60)
    crossed = (frequencies != 0).T
    assert crossed.sum(1).tolist() == [2] * 60
    assert crossed.unique(dim=0, return_counts=True)[1].tolist() == [10] * 6
    several, _ = across(40, 20)
    assert (several != 0).sum(0).tolist() == [2] * 20
    assert bool(((phases >= 0) & (phases < 2 * math.pi)).all())


def waved(waves: int, *along: tuple[float, ...]) -> tuple[MaskedNet, list[Tensor]]:
    """A table's model, with the places and waves that its network is shown from now on."""
    categories = Categories((*map(len, along), 2), (), (*along, ()))
    problem = Problem(Absorbing(), "classes", MaskedCrossEntropy(), (categories.width,), categories=categories)
    learner = MaskedColumns(problem, waves=waves)
    net, seen = learner.network(MLP(width=4, depth=1).build), []
    assert isinstance(net, Placed)
    net.net.register_forward_pre_hook(lambda _, given: seen.append(given[2][PLACES]))
    return learner.model(net), seen


@torch.no_grad()
@pytest.mark.parametrize("timeless", [False, True])
def test_a_network_is_told_the_share_of_known_tokens_unless_it_is_timeless(timeless: bool) -> None:
    problem = Problem(Absorbing(), "classes", MaskedCrossEntropy(), (NUMBERS.width,), categories=NUMBERS)
    learner, levels = MaskedColumns(problem, timeless=timeless), []
    net = learner.network(MLP(width=4, depth=1).build)
    net.register_forward_pre_hook(lambda _, given: levels.append(given[1]))
    learner.model(net).log_probs(NUMBERS.one_hot(torch.tensor([[1, 0, -1, -1], [1, 0, 1, -1]])), Condition())
    # ln(unknown / known); the same for all rows, as one number, for which networks take a shorter way
    expected = [0.0, 0.0] if timeless else [0.0, math.log(1 / 3)]
    assert torch.allclose(levels[0], torch.tensor(expected), atol=1e-6)
    assert (levels[0].stride(0) == 0) == timeless


@torch.no_grad()
@pytest.mark.parametrize(
    "config", [MLP(width=16, depth=2, dropout=0.5), Transformer(width=16, depth=1, heads_width=8, dropout=0.5)]
)
def test_dropout_grows_with_what_is_known_up_to_the_ramp(config: NetConfig) -> None:
    """The spread of 200 answers: none with nothing known, less half-way up the ramp, then as without a ramp."""
    problem = Problem(Absorbing(), "classes", MaskedCrossEntropy(), (NUMBERS.width,), categories=NUMBERS)
    codes = torch.tensor([[-1, -1, -1, -1], [1, -1, -1, -1], [1, 0, -1, -1], [1, 0, 1, -1]])
    x, spreads = NUMBERS.one_hot(codes), []
    for ramp in (0.0, 0.5):
        net = MaskedColumns(problem, smooth=True, ramp=ramp).network(config.build)
        dice = torch.Generator().manual_seed(3)
        for p in net.parameters():
            p.copy_(0.3 * torch.randn(p.shape, generator=dice))
        torch.manual_seed(0)
        passes = torch.stack([net.train()(x, torch.zeros(4), {}) for _ in range(200)])
        spreads.append(passes.std(0).mean(1))
        assert torch.equal(net.eval()(x, torch.zeros(4), {}), net(x, torch.zeros(4), {}))
    whole, found = spreads
    assert bool((whole > 0.01).all())
    assert found[0] == 0
    assert 0.2 < found[1] / whole[1] < 0.9  # dropout of a quarter instead of a half: a root of 1/3 for one layer
    torch.testing.assert_close(found[2:], whole[2:], rtol=0.15, atol=0)
    with pytest.raises(InputError, match=r"learner\.ramp=1\.5 must be a share of the tokens, in \[0, 1\]"):
        MaskedColumns(problem, ramp=1.5)


def test_waves_correlate_as_a_gaussian_kernel_of_the_distance_does() -> None:
    """2 sin(w p + b) sin(w q + b) has the mean exp(-6^2 |p - q|^2 / 2), if w is normal and b uniform."""
    model, seen = waved(4000, (-0.75, -0.25, 0.25, 0.75), (-0.15, -0.05, 0.05, 0.15))
    x = model.categories.one_hot(torch.tensor([[1, 0, 1], [1, 1, 0], [1, 3, -1], [2, 0, -1]]))
    with torch.no_grad():
        assert model.log_probs(x, Condition()).shape == x.shape
    waves = seen[0][:, -4000:]
    off = torch.tensor([0.0, 0.1, 0.3, 0.5])
    assert torch.allclose(2 * waves @ waves[0] / 4000, (-18 * off**2).exp(), atol=5 / 4000**0.5)


def test_waves_are_kept_whole_in_a_narrow_type_and_learn() -> None:
    model, seen = waved(8, (-0.5, 0.0, 0.5), (-0.5, 0.5))
    x = model.categories.one_hot(torch.tensor([[0, 1, 1], [2, 0, -1]]))
    replace(model, precision=torch.bfloat16).log_probs(x, Condition())
    model.log_probs(x, Condition())
    assert torch.equal(seen[0][:, -8:], seen[1][:, -8:])
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.add_(0.1)
    token_nats(model, x, Condition(), torch.tensor([[True, True, False]] * 2)).sum().backward()
    assert isinstance(model.net, Placed)
    for learns in (model.net.frequencies, model.net.phases):
        assert learns is not None
        assert learns.grad is not None
        assert bool((learns.grad != 0).any())


def test_waves_are_none_where_no_two_columns_have_an_order() -> None:
    model, seen = waved(7, (-0.5, 0.0, 0.5))
    assert model.net.frequencies is None
    model.log_probs(torch.zeros(2, 5), Condition())
    assert seen[0].shape == (2, 12)  # the place, whether it is known, and two each of five half-waves


#: a spike among bins of three cells, with a class for missing cells; three values; two words
NUMBERS = Categories(
    (5, 3, 3, 2),
    (-1, 0, -1, -1),
    (
        (-0.75, -0.25, 0.25, 0.75, 0.0),
        (*(-0.2, 0.0, 0.2), *(0.0, 0.0, 0.0), *(-0.2, 0.0, 0.2) * 2, *(0.0, 0.0, 0.0)),
        (-0.5, 0.0, 0.5),
        (),
    ),
    within=((), (3, 1, 3, 3, 1), (), ()),
)


def smooth_net(categories: Categories, told: Mapping[str, Part] | None = None, kept: float = 0.0) -> Any:
    objective, shape = MaskedCrossEntropy(), (categories.width,)
    problem = Problem(Absorbing(), "classes", objective, shape, conditions=told or {}, categories=categories)
    return MaskedColumns(problem, smooth=True, kept=kept).network(MLP(width=16, depth=1).build)


@torch.no_grad()
def test_a_smooth_network_sees_classes_of_words_spikes_and_holes_and_of_all_other_numbers_their_places() -> None:
    net, seen = smooth_net(NUMBERS), []
    net.net.register_forward_pre_hook(lambda _, given: seen.append((given[0], given[2][PLACES])))
    codes = torch.tensor([[0, 2, 0, 0], [1, 0, 1, 1], [4, 0, 2, 1], [3, 0, -1, 1], [3, 1, 0, 0], [3, -1, 0, 0]])
    assert net(NUMBERS.one_hot(codes), torch.zeros(6), {}).shape == (6, NUMBERS.width)
    shown, places = seen[0]
    # the spike, a missing cell, and two words
    words = [[0.0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0]]
    assert torch.equal(shown, net.scale * torch.tensor(words))
    along = torch.tensor([-0.55, -0.25, 0.0, 0.55, 0.75, 0.75])
    assert torch.allclose(places[:, 0], along)
    # both columns' places, whether they are known, four half-waves of each; a place in a bin and three half-waves of it
    assert places.shape[1] == 2 + 2 + 2 * 2 * 4 + 1 + 2 * 3
    waves = torch.tensor([1.0, 2.0, 4.0]) * math.pi * torch.tensor([1.0, 0.0, 0.0, -1.0, 0.0])[:, None]
    assert torch.allclose(places[:5, -7], torch.tensor([1.0, 0.0, 0.0, -1.0, 0.0]))
    assert torch.allclose(places[:5, -6:], torch.stack([waves.sin(), waves.cos()], 2).flatten(1), atol=1e-5)
    assert not places[5, -7:].any()  # not known, unlike what is in the middle
    many = replace(NUMBERS, within=((), (1, 1, 3, 1, 1), (), ()))  # where most are spikes, none is special
    assert classes_shown(NUMBERS).tolist() == [1, 4, 11, 12]
    assert classes_shown(many).tolist() == [4, 11, 12]
    assert classes_shown(Categories((3, 2), (), ((-0.5, 0.0, 0.5), (-0.5, 0.5)))).tolist() == [0]


@torch.no_grad()
@pytest.mark.parametrize("kept", [0.0, 0.1])
def test_a_smooth_network_is_told_conditions_and_may_doubt_its_details(kept: float) -> None:
    net = smooth_net(NUMBERS, {"places": Number()}, kept)
    for p in net.parameters():
        torch.nn.init.normal_(p, 0.0, 0.3, generator=torch.Generator().manual_seed(p.numel()))
    again = smooth_net(NUMBERS, {"places": Number()}, kept)
    again.load_state_dict(net.state_dict())
    x = NUMBERS.one_hot(torch.tensor([[0, 2, 0, 0], [3, -1, 2, 1]]))
    one, other = (net(x, torch.zeros(2), {"places": torch.full((2,), value)}) for value in (0.0, 1.0))
    assert torch.equal(again(x, torch.zeros(2), {"places": torch.zeros(2)}), one)
    assert float((one - other).abs().amax(1).min()) > 0.01


@torch.no_grad()
def test_a_smooth_network_with_more_outputs_than_classes_is_read_as_it_was_written() -> None:
    categories = Categories((4, 3), (), ((-0.75, -0.25, 0.25, 0.75), ()))  # three inputs, nine outputs, seven classes
    net, again = smooth_net(categories), smooth_net(categories)
    for p in net.parameters():
        torch.nn.init.normal_(p, 0.0, 0.3, generator=torch.Generator().manual_seed(p.numel()))
    again.load_state_dict(net.state_dict())
    x = categories.one_hot(torch.tensor([[0, 1], [-1, 2]]))
    assert torch.equal(again(x, torch.zeros(2), {}), net(x, torch.zeros(2), {}))


def test_a_smooth_networks_bins_learn_from_their_neighbours_by_a_gaussian_of_the_distance() -> None:
    count, taught = 48, 1  # near an end, where bins' kernels have different norms
    places = tuple((2 * i + 1) / count - 1 for i in range(count))
    categories = Categories((count + 1, 2), (), ((*places, 0.0), ()))
    net = smooth_net(categories)
    net(torch.zeros(1, 51), torch.zeros(1), {})[0, taught].backward()
    step = net.net.out.bias.grad
    assert isinstance(step, Tensor)
    near = (-72 * (torch.tensor(places)[:, None] - torch.tensor(places)) ** 2).exp()
    expected = near[:, taught] / near.square().sum(1).sqrt()
    expected[taught] += 0.5
    assert torch.allclose(step[:count], expected, atol=1e-5)
    assert not step[count:].any()
    net.zero_grad()
    net(torch.zeros(1, 51), torch.zeros(1), {})[0, [count, count + 2]].sum().backward()
    assert net.net.out.bias.grad.nonzero().flatten().tolist() == [count, count + 2]


@torch.no_grad()
@pytest.mark.parametrize("config", [MLP(width=16, depth=1), Transformer(width=32, depth=1, heads_width=16)])
def test_every_network_of_vectors_sees_places_beside_a_condition_of_their_name(config: NetConfig) -> None:
    categories = Categories((3, 2), (), ((-0.5, 0.0, 0.5), ()))
    nets = [Placed(config.build, categories, {"places": Number()}) for _ in range(2)]
    for p in nets[0].parameters():
        torch.nn.init.normal_(p, 0.0, 0.3, generator=torch.Generator().manual_seed(p.numel()))
    nets[1].load_state_dict(nets[0].state_dict())
    x, level = categories.one_hot(torch.tensor([[0, -1], [1, -1]])), torch.zeros(2)
    one, other = (nets[1](x, level, {"places": torch.tensor([value, value])}) for value in (0.0, 1.0))
    assert torch.equal(one, nets[0](x, level, {"places": torch.zeros(2)}))
    assert float((one - other).abs().max()) > 0.01  # the condition is heard
    # and so are places, where all that differs is beside the tokens
    inner, given = nets[0].net, {"places": torch.zeros(2)}
    seen = nets[0].seen(x)
    moved = [inner(nets[0].scale * x, level, {**given, nets[0].part: rows}) for rows in (seen, seen[[1, 0]])]
    assert torch.equal(moved[0], one)
    assert float((moved[1] - one).abs().max()) > 0.01


@pytest.mark.parametrize("waves", [0, 8])
def test_weights_of_a_network_with_places_among_its_tokens_are_the_same_function(waves: int) -> None:
    categories = Categories((3, 2, 2), (-1, 0, -1), ((-0.5, 0.0, 0.5), (-0.1, 0.1) * 3, (-0.5, 0.5)))
    now = Placed(MLP(width=16, depth=2).build, categories, {}, waves)
    more = 2 * 12 + waves
    old = MLP(width=16, depth=2).build((categories.width + more,))
    for p in old.parameters():
        torch.nn.init.normal_(p, 0.0, 0.5, generator=torch.Generator().manual_seed(p.numel()))
    weights = dict(old.state_dict())
    if waves:
        weights = {f"net.{name}": value for name, value in weights.items()}
        weights |= {"frequencies": torch.full((2, waves), 0.7), "phases": torch.arange(8.0)}
    now.load_state_dict(weights)
    x, level = categories.one_hot(torch.tensor([[2, 1, 0], [1, -1, -1], [-1, -1, 1]])), torch.tensor([0.0, -1.0, 2.0])
    laid = torch.cat([(7 / 3) ** 0.5 * x, now.seen(x)], 1)
    torch.testing.assert_close(now(x, level, {}), old(laid, level)[:, : categories.width])
    again = Placed(MLP(width=16, depth=2).build, categories, {}, waves)
    again.load_state_dict(now.state_dict())
    torch.testing.assert_close(again(x, level, {}), now(x, level, {}))


def numbers(count: int, seed: int) -> Tensor:
    """Three numbers of a bin and a detail each: the details of the first two agree, and all else is noise."""
    dice = torch.Generator().manual_seed(seed)
    codes = torch.stack([torch.randint(k, (count,), generator=dice) for k in (8, 4) * 3], 1)
    codes[:, 3] = codes[:, 1]
    return codes


def detailed(kept: float) -> MaskedColumns:
    categories = Categories((8, 4) * 3, (-1, 0, -1, 2, -1, 4))
    objective = MaskedCrossEntropy(ordered=1.0)
    problem = Problem(Absorbing(), "classes", objective, (categories.width,), categories=categories)
    return MaskedColumns(problem, kept=kept)


def test_details_that_are_noise_are_drawn_evenly_and_exact_ones_are_believed() -> None:
    """In nats of new rows, of a network that learns 400 rows by heart."""
    learner = detailed(0.2)
    categories, net = learner.categories, learner.network(MLP(width=64, depth=1).build)
    assert isinstance(net, Trusted)
    model, dice = learner.model(net), torch.Generator().manual_seed(0)
    x0, adam = categories.one_hot(numbers(400, 0)), torch.optim.Adam(net.parameters(), lr=1e-2)
    for step in range(200):
        adam.param_groups[0]["lr"] = 1e-2 * (1 - step / 200)
        adam.zero_grad()
        learner.loss(model, x0, None, dice, {}).mean().backward()
        adam.step()
    new, order = categories.one_hot(numbers(1000, 1)), outline_first(categories, x0)

    def nats(token: int) -> float:
        """Of that token in order."""
        known = (order < order[token]).expand(len(new), -1)
        with torch.no_grad():
            return float(token_nats(model, new, Condition(), known)[:, token].mean())

    flat = math.log(4)
    for noise in (1, 5):
        assert nats(noise) == pytest.approx(flat, abs=0.05)
    assert nats(3) < 0.05
    first, agreeing, last = net.trust.tolist()
    assert max(abs(first), abs(last)) < 0.2
    assert agreeing >= 1
    with torch.no_grad():  # as the network itself would have it, noise costs more than the flat law does
        net.trust.fill_(1.0)
    assert min(nats(1), nats(5)) > flat + 0.3


@pytest.mark.parametrize("kept", [True, False])
def test_rows_that_are_kept_back_teach_how_far_to_trust_details_and_no_details(kept: bool) -> None:
    learner = detailed(0.2)
    x0 = learner.categories.one_hot(numbers(16, 0))
    net = learner.network(MLP(width=8, depth=1).build)
    assert isinstance(net, Trusted)
    for p in net.net.parameters():
        torch.nn.init.normal_(p, 0.0, 0.5, generator=torch.Generator().manual_seed(0))
    model = replace(learner.model(net), kept=torch.full((16,), kept))
    nats = token_nats(model, x0, Condition(), torch.tensor([True, False, True, False, False, False]).expand(16, -1))
    trusting = torch.autograd.grad(nats[:, 1].sum(), net.trust, retain_graph=True)[0]
    learning = torch.autograd.grad(nats[:, 1].sum(), list(net.net.parameters()), retain_graph=True, allow_unused=True)
    outline = torch.autograd.grad(nats[:, 4].sum(), list(net.net.parameters()), allow_unused=True)
    assert [bool(each) for each in trusting] == [kept, False, False]
    assert any(g is not None and bool((g != 0).any()) for g in learning) == (not kept)
    assert any(g is not None and bool((g != 0).any()) for g in outline)


def test_which_rows_are_kept_back_is_a_matter_of_what_they_hold() -> None:
    categories, codes = detailed(0.2).categories, numbers(4000, 0)
    x0 = categories.one_hot(codes)
    kept = kept_back(categories, x0, 0.2)
    agrees(kept.double().mean(), torch.tensor(0.2, dtype=torch.float64), 4000)
    assert torch.equal(kept_back(categories, x0.flip(0)[:7], 0.2), kept.flip(0)[:7])
    for token in range(6):  # whatever a token is
        for k in range(categories.sizes[token]):
            among = kept[codes[:, token] == k].double()
            agrees(among.mean(), torch.tensor(0.2, dtype=torch.float64), len(among))


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match=r"learner.kept=1.5 must be a share"):
        detailed(1.5)


def test_a_network_that_is_only_measured_leaves_nothing_behind() -> None:
    learner = detailed(0.2)
    with torch.device("meta"):  # as it is sized before it is made
        learner.network(MLP(width=4, depth=1).build)
    net = learner.network(MLP(width=4, depth=1).build)
    assert learner.model(net).log_probs(torch.zeros(1, 36), Condition()).isfinite().all()


def test_without_details_or_rows_kept_back_there_is_nothing_to_trust() -> None:
    assert not isinstance(detailed(0.0).network(MLP(width=4, depth=1).build), Trusted)
    categories = Categories((3, 4))
    problem = Problem(Absorbing(), "classes", MaskedCrossEntropy(), (7,), categories=categories)
    learner = MaskedColumns(problem, kept=0.2)
    net = learner.network(MLP(width=4, depth=1).build)
    assert not isinstance(net, Trusted)
    x0 = categories.one_hot(torch.tensor([[0, 1]]))
    assert learner.loss(learner.model(net), x0, None, torch.Generator().manual_seed(0), {}).isfinite().all()


@pytest.mark.parametrize("ordered", [0.0, 0.5])
def test_other_tokens_are_taught_beside_the_bound(law: JointTable, ordered: float) -> None:
    """For two independent tokens the cross-entropy of what is hidden is the same whatever is known."""
    first, second = torch.tensor([0.2, 0.8], dtype=torch.float64), torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)
    apart = JointTable(first[:, None] * second, Absorbing())
    codes = torch.cartesian_prod(torch.arange(2), torch.arange(3))
    # each row many times, in places and orders of its own
    weight, x0 = apart.log_prob(codes).exp().repeat(500) / 500, apart.categories.one_hot(codes).double().repeat(500, 1)
    each = [-float((p * p.log()).sum()) for p in (first, second)]
    dice = torch.Generator().manual_seed(0)

    def mean(objective: MaskedCrossEntropy) -> tuple[float, float]:
        found = torch.stack([objective(apart, x0, None, dice).double() @ weight for _ in range(20)])
        return float(found.mean()), float(found.std()) / 20**0.5

    bound, _ = mean(MaskedCrossEntropy(ordered))
    found, error = mean(MaskedCrossEntropy(ordered, others=0.5))
    # nothing is known in half of the rows, and then the mean of both is added; in the others, of the one that is left,
    # which in order is the second
    last = ordered * each[1] + (1 - ordered) * sum(each) / 2
    assert bound == pytest.approx(sum(each), abs=10 * error)
    assert found == pytest.approx(sum(each) + 0.5 * (sum(each) / 2 + last), abs=10 * error)


def test_the_true_law_is_judged_by_its_entropy_beside_that_of_its_margins(law: JointTable) -> None:
    codes = rows(law)
    drawn = codes[torch.multinomial(law.log_prob(codes).exp(), 2000, True, generator=torch.Generator().manual_seed(0))]
    x0 = law.categories.one_hot(drawn).double()
    problem = Problem(Absorbing(), "classes", MaskedCrossEntropy(), (9,), categories=law.categories)
    found = MaskedColumns(problem).judge(law, x0, None)
    nats = -float(law.log_prob(drawn).mean())
    alone = float(-torch.special.xlogy(x0.mean(0), x0.mean(0)).sum())
    assert found.value == pytest.approx(nats / alone, rel=0.02)  # one order for each row
    assert found.known == pytest.approx([alone / 3] * 3)
    assert found.ratios[0] > found.ratios[-1]


def test_rows_that_are_all_alike_are_judged_beside_guessing(law: JointTable) -> None:
    """Columns by themselves tell such rows without a doubt, which is no unit to divide by."""
    codes = rows(law)[law.log_prob(rows(law)).argmin()].expand(20, -1)
    problem = Problem(Absorbing(), "classes", MaskedCrossEntropy(), (9,), categories=law.categories)
    found = MaskedColumns(problem).judge(law, law.categories.one_hot(codes).double(), None)
    guess = sum(map(math.log, SHAPE)) / 3
    assert found.known == pytest.approx([guess] * len(found.known))
    assert found.value == pytest.approx(-float(law.log_prob(codes).mean()) / 3 / guess, rel=0.3)  # one order a row
