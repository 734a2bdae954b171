"""A prior and a decoder: an embedding of the picture first, then the picture given it.

An embedding z = e(x) holds what a caption can say about a picture x, and little else (`ornstein.mixed.embedding`). As z
is a function of x, the distribution of pictures is a product of two,

    p(x given c) = p(z given c) p(x given z, c),

a *prior*, which draws z given the caption c, and a *decoder*, which draws x given z, each an ordinary denoiser trained
with the ordinary objective (DALL-E 2; Ramesh et al. 2022, 2204.06125). Each part of the product dissolves on its own,
as everywhere in this package, and they are walked one after the other: z down to its clean level while x is pure
noise, then x while z stays.

This opens a place between the two. Given the z of an existing picture instead of one that was drawn, the decoder makes
*variations* of the picture: what the embedding holds stays, and the rest is drawn anew.

*Here.* The embedding is learned in the same run, from the same pairs, so that none trained on millions is needed. Prior
and decoder learn from the embedding as it is at each step, and do not train it. Its vectors have the length sqrt(d), so
that their numbers have a mean square of 1. In training each part of the decoder's condition is absent in some rows, so
it works without an embedding too: whatever fills in or encodes pictures calls it in this way, or with the embedding of
`like`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core.condition import Condition, Given
from ornstein.core.denoiser import Denoiser, NetDenoiser
from ornstein.core.drive import other_seeds, sample_seeds, trajectory
from ornstein.core.learner import JUDGED_BY, Judgement, Learner, mean_of
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.core.walk import State, end
from ornstein.errors import InputError, must_be_whole
from ornstein.latent.cascade import OneOf, StagesNet, noise_levels, with_noise
from ornstein.mixed.embedding import contrast
from ornstein.nets import MLP, Picture, Vector
from ornstein.nets.matcher import Matcher

#: the part of the condition that is drawn first
EMBEDDING = "embedding"
#: counters for the seeds of the prior's walk, and for the noise of the pictures that train the embedding
_SEEDS, _NOISED = 2**35, 2**36
#: the networks, in order
_DECODER, _PRIOR, _MATCHER = range(3)
#: weight of the embedding's loss beside the others, which are errors of unit size: it is in nats, and would drown them
#: where the gradient's whole length is clipped
_CONTRAST = 0.1


@dataclass(frozen=True, eq=False)
class Embedder:
    """Embeds samples by a matcher (`ornstein.nets.matcher`).

    Args:
        net: (x, condition) -> unit vectors of both.
        size: the number of entries of these vectors.
    """

    net: nn.Module
    size: int

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Samples (B, *shape) -> their embeddings (B, size), of length sqrt(size)."""
        found: Tensor = math.sqrt(self.size) * self.net(x)[0]
        return found

    def contrast(self, x: Tensor, condition: Condition) -> Tensor:
        """The loss that trains it: see `ornstein.mixed.embedding.contrast`."""
        seen, said, sharpness = self.net(x, condition.parts)
        return contrast(seen, said, sharpness, condition)


@dataclass(frozen=True, eq=False)
class PriorAndDecoder(Denoiser):
    """A denoiser of embeddings and one of samples given them; as a denoiser, the latter given what is known.

    Args:
        prior: of embeddings (B, d), given a condition.
        decoder: of samples, given the condition and the part `EMBEDDING`.
        embed: samples (B, *shape) -> their embeddings (B, d); None if no embeddings of samples are needed.
        like: (1, d) or (B, d), an embedding that samples are drawn given; None to draw one for each.
        guide: makes guided denoisers of the prior and decoder that samples are drawn from; None for none.
    """

    prior: Denoiser
    decoder: Denoiser
    embed: Embedder | None = None
    like: Tensor | None = None
    guide: Callable[[Denoiser], Denoiser] | None = None

    @property
    def process(self) -> Any:  # type: ignore[override]
        return self.decoder.process

    @property
    def sigma_data(self) -> float:  # type: ignore[override]
        return self.decoder.sigma_data

    @property
    def noise_unit(self) -> float | None:  # type: ignore[override]
        return self.decoder.noise_unit

    @property
    def device(self) -> torch.device:
        return self.decoder.device

    def predict(self, x: Tensor, level: Level, condition: Condition) -> Prediction:
        return self.decoder.predict(x, level, self.told(condition, len(x)))

    def told(self, condition: Condition, rows: int) -> Condition:
        """A condition together with the embedding `like`, if there is one."""
        if self.like is None or EMBEDDING in condition.parts:
            return condition
        z = self.like.to(self.device)
        return Condition({**condition.parts, EMBEDDING: z.repeat(rows // len(z), 1)})

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """The prior or the decoder, guided as samples are drawn from it."""
        return denoiser if self.guide is None else self.guide(denoiser)


@dataclass(frozen=True, eq=False)
class PriorDecoding(Learner):
    """An embedding first, then the picture given it: a prior and a decoder (DALL-E 2; Ramesh et al. 2022).

    The decoder begins as the model of the run that this one begins with (`--from`), if any.

    Args:
        problem: the problem that the decoder solves.
        embedding: the number of entries of an embedding.
        prior_steps: steps of the prior, whose network is small; `steps` of drawing are the decoder's.
        width, depth: of the prior's network, a residual perceptron.
        channels: of the finest level of the network that embeds pictures.
        silent: share of the rows whose decoder sees the embedding without the condition.
        noise: the greatest noise ratio sigma/alpha of the pictures that train the embedding.

    Raises:
        InputError: data without a condition, or that are not grids; settings out of range.
    """

    embedding: int = 64
    prior_steps: int = 30
    width: int = 256
    depth: int = 4
    channels: int = 32
    silent: float = 0.5
    noise: float = 0.5

    unlike: ClassVar[str] = "it draws an embedding first, and what its decoder draws without one is of another law"

    def __post_init__(self) -> None:
        for name, least in (("embedding", 2), ("prior_steps", 1), ("width", 1), ("depth", 1), ("channels", 2)):
            must_be_whole(f"learner.{name}", getattr(self, name), least, 4096)
        if not 0 <= self.silent <= 1 or not 0 <= self.noise < 100:
            raise InputError(
                f"learner.silent={self.silent!r} must be a share in [0, 1], and learner.noise={self.noise!r} a noise "
                "ratio from 0 to below 100."
            )
        problem = self.problem
        if problem.categories is not None or problem.gaps or problem.far is not None or len(problem.shape) < 2:
            raise InputError("learner='prior' takes complete signals, pictures or volumes; these data are others.")
        if not problem.conditions or any(isinstance(part, Picture) for part in problem.conditions.values()):
            raise InputError(
                "learner='prior' draws an embedding of what is known of a picture in words, labels or numbers, and "
                "needs such a condition and no other: captions, as in data.captions=captions.csv, or labels."
            )
        if EMBEDDING in problem.conditions:
            raise InputError(f"data.condition={EMBEDDING!r} is what the decoder is told; rename it.")

    @classmethod
    def implied(cls, predicts: str, objective: Callable[..., Any]) -> bool:
        return False

    @classmethod
    def explained(cls, settings: Mapping[str, Any], shape: tuple[int, ...]) -> str:
        return (
            f"an embedding of {settings['embedding']} numbers in {settings['prior_steps']} steps of a small network, "
            f"then {'x'.join(map(str, shape))} given it; sample --like PICTURE draws given that of a picture"
        )

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        conditions, vector = self.problem.conditions, (self.embedding,)
        decoder = build(self.problem.shape, {**conditions, EMBEDDING: Vector(self.embedding)})
        prior = MLP(self.width, self.depth, self.width).build(vector, conditions, seed=seed)
        matcher = Matcher(self.embedding, self.channels).build(self.problem.shape, conditions, seed=seed)
        return StagesNet([decoder, prior, matcher])

    def begin(self, net: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """Give the decoder a plain denoiser's weights; at first all embeddings are alike to it."""
        if weights.keys() == net.state_dict().keys():
            super().begin(net, weights)
            return
        assert isinstance(net, StagesNet)  # made by `network`
        decoder = net.stages[_DECODER]
        found = decoder.load_state_dict(weights, strict=False)
        own = [name for name in found.missing_keys if f".{EMBEDDING}." in name]
        if found.unexpected_keys or len(own) != len(found.missing_keys):
            raise RuntimeError("the weights are of another network than the decoder.")
        with torch.no_grad():
            for name in own:
                decoder.get_parameter(name).zero_()

    def model(self, net: nn.Module) -> PriorAndDecoder:
        problem, process = self.problem, self.problem.process
        decoder = NetDenoiser(
            OneOf(net, _DECODER), process, problem.predicts, problem.sigma_data, noise_unit=problem.noise_unit
        )
        prior = NetDenoiser(OneOf(net, _PRIOR), process, problem.predicts)
        return PriorAndDecoder(prior, decoder, Embedder(OneOf(net, _MATCHER), self.embedding))

    @property
    def narrow(self) -> bool:
        return True

    def in_precision(self, model: Any, precision: torch.dtype | None) -> Any:
        if not isinstance(model, PriorAndDecoder):
            return model
        return replace(model, decoder=super().in_precision(model.decoder, precision))

    def loss(
        self,
        model: PriorAndDecoder,
        x0: Tensor,
        condition: Given,
        generator: torch.Generator,
        memory: dict[str, Tensor],
    ) -> Tensor:
        """The sum of the losses of decoder, prior and embedding, (B,).

        An embedding is compared with the others in its piece of a batch: smaller pieces teach it less.
        """
        condition = Condition.of(condition)
        ratio, seeds = noise_levels(x0, self.noise, generator)
        noisy = with_noise(x0, self.problem.unit * ratio, seeds, _NOISED)
        assert model.embed is not None  # made by `model`
        learned = model.embed.contrast(noisy, condition)
        z = model.embed(x0)
        told = Condition({**condition.dropped(self.silent, generator).parts, EMBEDDING: z})
        decoded = self.problem.objective(model.decoder, x0, told, generator)
        drawn = self.problem.objective(model.prior, z, condition, generator)
        return decoded + drawn + _CONTRAST * learned

    def times(self, n: int, generator: torch.Generator) -> Tensor | None:
        return None  # prior and decoder have different ones

    def trajectory(
        self,
        model: Any,
        rows: int,
        stepper: Any,
        steps: int | None,
        grid: "str | Sequence[float] | Tensor | None",
        *,
        condition: Given = None,
        seeds: "Sequence[int] | Tensor | None" = None,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> Iterator[State[Tensor]]:
        """The decoder's walk, given embeddings that the prior draws before the first state.

        `like`, or the condition's part `EMBEDDING`, is used instead if given. A walk that begins at a given x, or whose
        model has been wrapped to fill in or to measure, is the decoder's alone. The calls counted are the decoder's.
        """
        keys, condition = sample_seeds(rows, seed, seeds, generator), Condition.of(condition).matches(rows, "n")

        def decoded(denoiser: Denoiser, given: Condition) -> Iterator[State[Tensor]]:
            how = {"condition": given, "seeds": keys, **options}
            return super(PriorDecoding, self).trajectory(denoiser, rows, stepper, steps, grid, **how)

        if not isinstance(model, PriorAndDecoder):
            return decoded(model, condition)
        given = model.told(condition, rows)
        decoder = model.guided(model.decoder)
        walk = decoded(decoder, given)  # refuses now what does not fit
        if EMBEDDING in given.parts or "x" in options:
            return walk
        own: dict[str, Any] = {"condition": condition, "seeds": other_seeds(keys, _SEEDS)}
        own |= {key: value for key, value in options.items() if key == "dtype"}
        shape = (rows, self.embedding)
        first = trajectory(model.guided(model.prior), shape, stepper, steps=self.prior_steps, **own)

        def in_a_row() -> Iterator[State[Tensor]]:
            z = end(first).x
            yield from decoded(decoder, Condition({**given.parts, EMBEDDING: z.to(model.device)}))

        return in_a_row()

    @torch.no_grad()
    def judge(self, model: Any, x0: Tensor, condition: Given) -> Judgement:
        """The mean of the judgements of prior and decoder, the latter given embeddings of the data themselves."""
        x0 = x0[:JUDGED_BY].to(model.device)
        given = Condition.of(condition)[:JUDGED_BY].to(model.device)
        z = model.embed(x0)
        found = [
            super().judge(model.decoder, x0, Condition({**given.parts, EMBEDDING: z})),
            super().judge(model.prior, z, given),
        ]
        return mean_of(found)
