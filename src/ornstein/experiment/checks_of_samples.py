"""The doctor's checks of samples: are they valid, would more steps change them, are they copies, is a kind missing?

**Copies.** A sample that owes nothing to m training examples lies nearer to one of them than to one of m held-out
examples half of the time ("distance to the closest record"). The scatter of this share follows from the two sets being
exchangeable: with w_j the share of the samples that lie nearest to example j of the 2m, its variance is about
sum w_j^2/4.
"""

import math

import torch

from ornstein.core.drive import another_seed
from ornstein.core.grids import MOST_STEPS
from ornstein.experiment.checks import SURE, Examined
from ornstein.experiment.evidence import Evidence
from ornstein.metrics import closest_records, clusters, memorisation, nearest
from ornstein.samplers import DEFAULT_STEPPER

#: what more steps move at most, in standard deviations of the data: sample by sample, and in law
MOVED, MOVED_IN_LAW = 0.06, 0.02
#: distance to the closest training example is so much of a held-out one's; samples beyond the honest half; data missed
NEAR_COPIES, COPIED, MISSED = 0.5, 0.05, 0.0
#: held-out examples with fewer of which nothing is told of copies and kinds
FEWEST = 10
#: what a kind of data is called where it has no name
CLUSTER = "cluster"
#: samples that are drawn again in more steps, and how many times more
_AGAIN, _FINER = 64, 4
#: steps of the deterministic walk that one which draws noise is compared with
_LONG = 100


def broken_draws(evidence: Evidence) -> Examined | None:
    """Samples with values that are not finite, or far beyond any in the data."""
    if not evidence.run.learner.draws:
        return None
    far = 3 * float(evidence.known.abs().max())
    wrong = ~(evidence.drawn.flatten(1).abs() <= far).all(1)
    return Examined(
        "share of samples with a value that is not finite, or beyond three times the largest in the data",
        float(wrong.double().mean()),
        "some samples are invalid: the model has hardly learnt yet or has diverged, or the sampler's steps are too "
        "long.",
        "if it was trained for only a few hundred steps, train longer (--resume with more training.steps); if not, "
        "draw in more steps (sampling.steps), or train again with a lower training.lr.",
        most=0.02,
        share=True,
    )


def sampler(evidence: Evidence) -> Examined | None:
    """How far samples move when the same noise is drawn in more steps; in law, for a sampler that draws noise."""
    if not (evidence.denoises and evidence.finite):
        return None
    run, process = evidence.run, evidence.run.model.process
    how = run.way()
    more = min(_FINER * how.steps, process.chain or MOST_STEPS)
    if more < 2 * how.steps:
        return None  # every level of a chain is walked through, or nearly
    if how.stepper.stochastic:
        return _sampler_in_law(evidence, min(max(more, _LONG), process.chain or MOST_STEPS))
    few = min(_AGAIN, evidence.count)
    again = run.draw(few, seed=evidence.seed, condition=evidence.given[:few], steps=more)
    off = (again - evidence.drawn[:few]).double().square().mean().sqrt()
    spread = (evidence.known - evidence.known.mean(0)).double().square().mean().sqrt()
    return _unconverged(
        f"distance that samples move in {more} steps instead of {how.steps}, in standard deviations of the data",
        float(off / spread),
        MOVED,
    )


def _sampler_in_law(evidence: Evidence, more: int) -> Examined:
    """Two-sample energy statistic between draws in few and in many steps, beyond what chance explains."""
    run, few = evidence.run, min(256, evidence.count)
    again = run.draw(
        few, seed=another_seed(evidence.seed, 1), condition=evidence.given[:few], steps=more, stepper=DEFAULT_STEPPER
    )
    again = again.flatten(1).double()
    here = evidence.drawn[:few].flatten(1).double()
    spread = (evidence.known - evidence.known.mean(0)).double().flatten(1).square().sum(1).mean().sqrt()
    between, within = torch.cdist(here, again), (torch.cdist(here, here), torch.cdist(again, again))
    pairs = few * (few - 1)
    energy = float(2 * between.mean() - sum(d.sum() / pairs for d in within))
    return _unconverged(
        f"energy distance of samples to those of a deterministic walk of {more} steps, in standard deviations of the "
        "data",
        max(0.0, energy) / float(spread),
        MOVED_IN_LAW,
    )


def _unconverged(measured: str, figure: float, most: float) -> Examined:
    return Examined(
        measured,
        figure,
        "samples still change when they are drawn in more steps: what is seen is partly the sampler's error.",
        "draw in more steps (sampling.steps), with a stepper of higher order, or fit one (`ornstein tune RUN "
        "--criterion endpoint`).",
        most=most,
    )


def memorised(evidence: Evidence) -> Examined | None:
    """The share of samples nearer to training examples than to as many held-out ones; see the module."""
    if not evidence.run.learner.draws or len(evidence.data.test) < FEWEST:
        return None
    if evidence.run.types:
        return _repeated(evidence)  # where a missing cell is a value like others
    if not evidence.finite:
        return None
    measured, (made, train, test) = evidence.ruler.measured, evidence.compared
    size = min(len(train), len(test), 2000)
    dice = evidence.dice()
    drawn = measured(made)
    seen, unseen = (measured(x[torch.randperm(len(x), generator=dice)[:size]].float()) for x in (train, test))
    # a table has rows twice: of equally near ones half count
    to_seen, by_seen = nearest(drawn, seen)
    to_unseen, by_unseen = nearest(drawn, unseen)
    nearer = (to_seen < to_unseen).double() + 0.5 * (to_seen == to_unseen).double()
    share = float(nearer.mean())
    winner = torch.where(to_seen <= to_unseen, by_seen, size + by_unseen)
    weight = winner.bincount(minlength=2 * size).double() / len(drawn)
    scatter = math.sqrt(float(weight.square().sum()) / 4 + 0.25 / len(drawn))
    copies = memorisation(drawn, measured(train.float()), measured(test[:4000].float()))
    # a large training set hides copies from a small sample of it; how near samples come to any of it does not
    told = max(0.0, share - 0.5 - SURE * scatter)
    near = max(0.0, 1 - copies.ratio)
    return _copied(
        f"how many more samples than chance explains are nearer to {size:,} training than to {size:,} held-out "
        f"examples ({share:.1%} are, where half would be; distance to the closest of all training examples "
        f"{copies.ratio:.2f} of that of held-out ones)",
        max(told, near - NEAR_COPIES),
    )


def _repeated(evidence: Evidence) -> Examined:
    """The same of rows of a table, whose columns have a distance by ranks alone: see `ornstein.metrics.records`."""
    run, data = evidence.run, evidence.data
    words = [kind.worded for kind in run.types]
    rows = run.transform.inverse(evidence.drawn)
    found = closest_records(rows, data.train, data.test, words, evidence.dice(), most=4000)
    told = max(0.0, found.nearer - 0.5 - SURE * found.nearer_spread)
    return _copied(
        f"how many more rows than chance explains are nearer to {found.rows:,} training than to {found.rows:,} "
        f"held-out rows ({found.nearer:.1%} are, where half would be)",
        told,
    )


def _copied(measured: str, figure: float) -> Examined:
    return Examined(
        measured,
        figure,
        "samples are copies of training examples, or nearly.",
        "more data; fewer training.steps, a smaller network, net.dropout. Do not give samples away as new where "
        "training data are private.",
        most=COPIED,
        share=True,
    )


def modes_missed(evidence: Evidence) -> Examined | None:
    """The largest kind of held-out data, by class or by cluster, that samples hardly reach."""
    if not evidence.run.learner.draws or not evidence.finite or len(evidence.data.test) < FEWEST:
        return None
    if evidence.run.types:
        return None  # rows of words have no clusters by distance; the report tells their columns one by one
    measured, (made, _, test) = evidence.ruler.measured, evidence.compared
    rows = torch.randperm(len(test), generator=evidence.dice())[: evidence.at_most(4000, len(test))]
    real, drawn = measured(test[rows].float()).flatten(1), measured(made).flatten(1)
    parts = {CLUSTER: clusters(real, max(2, min(12, len(real) // 30)), evidence.dice())}
    labels = evidence.data.test_labels
    if labels is not None and len(evidence.data.classes) > 1:
        parts["class"] = labels[rows]
    missed, what = 0.0, ""
    for noun, kind in parts.items():
        found = kind[nearest(drawn, real)[1]]
        for k in kind.unique().tolist():
            there, reached = int((kind == k).sum()), int((found == k).sum())
            share = there / len(real)
            gone = reached / len(drawn) < share / 5 and _apart(reached, len(drawn), there, len(real)) > SURE + 1
            if k >= 0 and gone and share > missed:
                missed, what = share, f"{noun} {k}" if noun == CLUSTER else f"{noun} {evidence.data.classes[k]}"
    return Examined(
        f"share of held-out data in the largest kind that samples hardly reach{f' ({what})' if what else ''}",
        missed,
        "some kind of data occurs among the held-out examples but hardly among the samples.",
        "check that the training data have it; train longer; draw without guidance, or with less.",
        most=MISSED,
        share=True,
    )


def _apart(made: int, of: int, there: int, among: int) -> float:
    """How many standard deviations two shares are apart: the root of the likelihood ratio of their being one."""
    together = (made + there) / (of + among)
    each = ((made, of * together), (of - made, of * (1 - together)), (there, among * together),
            (among - there, among * (1 - together)))  # fmt: skip
    return math.sqrt(max(0.0, 2 * sum(seen * math.log(seen / wanted) for seen, wanted in each if seen)))
