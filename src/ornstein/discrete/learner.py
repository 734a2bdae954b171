"""What a run on masked columns learns: the probabilities of the values of any cells of a row, given any others."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.drive import sample_seeds
from ornstein.core.learner import LEVELS, Judgement, Measure
from ornstein.core.numerics import uniform
from ornstein.core.walk import State, end
from ornstein.discrete.critic import Critic, choosy, learn, numbers_of
from ornstein.discrete.denoiser import MaskedDenoiser, MaskedNet
from ornstein.discrete.details import Trusted, kept_back
from ornstein.discrete.drive import Unmasker, unmask
from ornstein.discrete.kernels import Absorbing
from ornstein.discrete.learning import OfTokens
from ornstein.discrete.objective import MaskedCrossEntropy, next_weights, ranks, token_nats
from ornstein.discrete.steppers import AnyOrder
from ornstein.discrete.waves import Placed
from ornstein.errors import InputError, must_be_whole

#: the number of held-out rows by which a model is judged
_JUDGED_BY = 2000

#: every unmasker, by name
UNMASKERS: dict[str, Callable[..., Unmasker]] = {"any-order": AnyOrder}
#: the objectives of models of masked tokens, by name
MASKED_OBJECTIVES: dict[str, Callable[..., Any]] = {"masked": MaskedCrossEntropy}


@dataclass(frozen=True, eq=False)
class MaskedColumns(OfTokens):
    """A table's rows as tokens, masked in any order: each column given any others (Austin et al. 2021).

    Args:
        waves: how many plane waves across two columns the network sees, by which it learns what two numbers say
            together, such as those of a place on a map. There are none where fewer than two columns have an order.
        kept: share of the rows that teach no details of numbers, but how far the network can be trusted with those of
            new rows: see `ornstein.discrete.details`. 0 to trust it.
        smooth: whether the network sees numbers by where they lie, rather than by their bins, and gives neighbouring
            bins similar probabilities: see `ornstein.discrete.waves`.
        timeless: whether the network is not told the share of known tokens, a noise level for each row. It sees which
            are known, and given them the others do not depend on when they were masked (Ou et al. 2024, 2406.03736);
            a step takes less time.
        ramp: share of known tokens from which dropout is all of `net.dropout`; with fewer it is less, in proportion,
            since what follows from few tokens cannot be learnt by heart: see `ornstein.discrete.waves`. 0: all of it
            everywhere.
        trees: of a critic that is taught once training has ended, and by whose odds some draws are made again: see
            `ornstein.discrete.critic`. 0 for no critic. There is none for draws given columns (`data.condition`), and
            holes are filled without it.
    """

    waves: int = 0
    kept: float = 0.0
    smooth: bool = False
    timeless: bool = False
    ramp: float = 0.0
    trees: int = 0

    readings: ClassVar[Mapping[str, str]] = {"classes": "The probabilities of each token's classes, as logits."}
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = MASKED_OBJECTIVES
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = {"absorbing": Absorbing}
    steppers: ClassVar[Mapping[str, Callable[..., Any]]] = UNMASKERS
    instead: ClassVar[str] = "token by token, for which there are sample --where, impute and loglik"
    at_once: ClassVar[int] = 4096
    then: ClassVar[str] = "ornstein sample {run} -n 1000 --out rows.csv     ornstein evaluate {run}"
    judges: ClassVar[Measure] = Measure(
        "loss-by-noise", "surprise at the next token, in nats", "each column by itself", "columns alone",
        across="hidden tokens for each known one",
    )  # fmt: skip

    def __post_init__(self) -> None:
        must_be_whole("learner.waves", self.waves, 0)
        must_be_whole("learner.trees", self.trees, 0)
        if not 0 <= self.kept < 1:
            raise InputError(f"learner.kept={self.kept!r} must be a share of the rows, at least 0 and below 1.")
        if not 0 <= self.ramp <= 1:
            raise InputError(f"learner.ramp={self.ramp!r} must be a share of the tokens, in [0, 1].")
        if self.problem.categories is None:
            raise InputError(
                "predicts='classes' needs data in tokens, such as a table (data=table); these data are numbers."
            )

    @property
    def steps(self) -> int:
        return self.categories.tokens

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        net = Placed(build, self.categories, self.told, self.waves, self.smooth, self.ramp)
        return Trusted(net, self.categories) if self._asks_for_trust else net

    @property
    def _asks_for_trust(self) -> bool:
        return self.kept > 0 and max(self.categories.after) >= 0

    def loss(
        self, model: MaskedNet, x0: Tensor, condition: Given, generator: torch.Generator, memory: dict[str, Tensor]
    ) -> Tensor:
        if self._asks_for_trust:
            model = replace(model, kept=kept_back(self.categories, x0, self.kept))
        return super().loss(model, x0, condition, generator, memory)

    def model(self, net: nn.Module) -> MaskedNet:
        return MaskedNet(net, self.problem.process, self.categories, timeless=self.timeless)

    def walk(self, model: Any, rows: int, stepper: Any, steps: int | None, **options: Any) -> Iterator[State[Tensor]]:
        """The walk of `ornstein.discrete.unmask`, at the end of which the model's critic has been heard.

        The option `x` has the known tokens, (rows, width); or it is a function `x(which, seeds)` that draws them for
        the rows `which` of the walk, so that they are drawn anew with the rest. Draws with the option `allowed`, which
        fill holes, are not criticised.
        """
        seeds = sample_seeds(rows, *(options.pop(name, None) for name in ("seed", "seeds", "generator")))
        begun, condition = options.pop("x", None), Condition.of(options.pop("condition", None))

        def drawn(which: "slice | Tensor", keys: Tensor) -> Iterator[State[Tensor]]:
            x = begun(which, keys) if callable(begun) else None if begun is None else begun[which]
            options.update(condition=condition[which], x=x)
            return unmask(model, len(keys), stepper, steps=steps, seeds=keys, **options)

        states = drawn(slice(None), seeds)
        if model.critic is None or options.get("allowed") is not None:
            return states
        again: Callable[[Tensor, Tensor], Tensor] = lambda which, keys: end(drawn(which.cpu(), keys)).x  # noqa: E731
        return choosy(states, model.critic, self.categories, seeds.to(model.device), again)

    @property
    def criticised(self) -> bool:
        return self.trees > 0 and not self.told

    def seen_by_critic(self, x: Tensor) -> Tensor:
        return numbers_of(self.categories, x)

    def critic(self, real: Tensor, drawn: Tensor, generator: torch.Generator) -> Mapping[str, Tensor]:
        return learn(real, drawn, self.trees, generator).tensors()

    def with_critic(self, model: MaskedNet, critic: Mapping[str, Tensor]) -> MaskedNet:
        return replace(model, critic=Critic.of(critic).to(model.device))

    @torch.no_grad()
    def judge(self, model: MaskedDenoiser, x0: Tensor, condition: Given) -> Judgement:
        """The bound on the held-out rows' nats, relative to that of independent columns.

        It uses the first `_JUDGED_BY` rows, in one order each, at `LEVELS` numbers of known tokens.
        """
        categories = self.categories
        x0 = x0[:_JUDGED_BY].to(model.device)
        condition = Condition.of(condition)[:_JUDGED_BY].to(model.device)
        order = ranks(categories, uniform(torch.arange(len(x0), device=model.device), categories.tokens, 0))
        shares = x0.mean(0)
        alone = self.unit(-(x0 * shares.clamp_min(1e-12).log()).sum(1).mean().item() / categories.tokens)
        total = categories.tokens
        places = sorted({round(i * (total - 1) / (LEVELS - 1)) for i in range(LEVELS)})
        ratios, nats = [], []
        for place in places:
            known = order < place
            asked = next_weights(categories, known) * token_nats(model, x0, condition, known)
            nats.append(asked.sum(1).mean().item())
            ratios.append((total - place) / (place + 0.5))
        value = float(np.interp(range(total), places, nats).mean())  # linear between the places that were measured
        return Judgement(value / alone, ratios, nats, [alone] * len(nats))
