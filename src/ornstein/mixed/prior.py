"""A prior and a decoder: an embedding of the picture first, then the picture given it.

An embedding z = e(x) holds what a caption can say of a picture x, and little else (`ornstein.mixed.embedding`). As z is
a function of x, the law of pictures is a product of two,

    p(x given c) = p(z given c) p(x given z, c),

a *prior*, which draws z given the caption c, and a *decoder*, which draws x given z, each an ordinary denoiser that is
taught by the ordinary objective (DALL-E 2; Ramesh et al. 2022, 2204.06125). The parts of the product dissolve each on
their own, as in all of this room, and are walked one after the other: z down to its clean level while x is nothing but
noise, then x while z stays.

What is gained is a place between the two. With z of a picture that is there, in the place of one that was drawn, the
decoder makes *variations* of it: what the embedding holds stays, and the rest is drawn anew.

*Here.* The embedding is learned in the same run, of the same pairs, as nobody brings one along that was learned on
millions. Prior and decoder learn of it as it is at each step, and teach it nothing. Its vectors have the length
sqrt(d), so that their numbers have a mean square of 1. In training each part of the decoder's condition is absent in
some rows, so it answers without an embedding too: what fills in pictures and what encodes them asks it so, or with the
embedding of `like`.
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
from ornstein.core.numerics import normal
from ornstein.core.prediction import Prediction
from ornstein.core.process import Level
from ornstein.core.walk import State, end
from ornstein.errors import InputError, must_be_whole
from ornstein.latent.cascade import OneOf, StagesNet
from ornstein.mixed.embedding import contrast
from ornstein.nets import MLP, Picture, Vector
from ornstein.nets.matcher import Matcher

#: the part of the condition that is drawn first
EMBEDDING = "embedding"
#: counters for the seeds of the prior's walk, and for the noise of what the embedding is learned of
_SEEDS, _NOISED = 2**35, 2**36
#: the networks, in their order
_DECODER, _PRIOR, _MATCHER = range(3)
#: of the embedding's loss beside the others, which are errors of unit size: in nats, it would drown them where the
#: gradient's whole length is clipped
_CONTRAST = 0.1


@dataclass(frozen=True, eq=False)
class Embedder:
    """A matcher (`ornstein.nets.matcher`) as what embeds samples.

    Args:
        net: (x, condition) -> unit vectors of both.
        size: how many numbers they have.
    """

    net: nn.Module
    size: int

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Samples (B, *shape) -> their embeddings (B, size), of length sqrt(size)."""
        found: Tensor = math.sqrt(self.size) * self.net(x)[0]
        return found

    def contrast(self, x: Tensor, condition: Condition) -> Tensor:
        """What teaches it: see `ornstein.mixed.embedding.contrast`."""
        seen, said, sharpness = self.net(x, condition.parts)
        return contrast(seen, said, sharpness, condition)


@dataclass(frozen=True, eq=False)
class PriorAndDecoder(Denoiser):
    """A denoiser of embeddings and one of samples given them; as a denoiser itself the latter, told what is known.

    Args:
        prior: of embeddings (B, d), given a condition.
        decoder: of samples, given it and the part `EMBEDDING`.
        embed: samples (B, *shape) -> their embeddings (B, d); None where none is asked for.
        like: (1, d) or (B, d), an embedding that samples are drawn given; None to draw one for each.
        guide: makes of prior and decoder, as they are drawn from, guided ones; None for none.
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
        """A condition with the embedding of `like`, if there is one."""
        if self.like is None or EMBEDDING in condition.parts:
            return condition
        z = self.like.to(self.device)
        return Condition({**condition.parts, EMBEDDING: z.repeat(rows // len(z), 1)})

    def guided(self, denoiser: Denoiser) -> Denoiser:
        """The prior or the decoder as it is drawn from."""
        return denoiser if self.guide is None else self.guide(denoiser)


@dataclass(frozen=True, eq=False)
class PriorDecoding(Learner):
    """An embedding first, then the picture given it: a prior and a decoder (DALL-E 2; Ramesh et al. 2022).

    The decoder begins as the model of the run that this one begins with (`--from`), if any.

    Args:
        problem: what the decoder is put to.
        embedding: how many numbers an embedding has.
        prior_steps: of the prior, whose network is small; the decoder takes those of the drawing.
        width, depth: of the prior's network, a residual perceptron.
        channels: of the finest level of the network that embeds pictures.
        silent: share of the rows whose decoder is not told the condition beside the embedding.
        noise: the greatest noise ratio sigma/alpha of pictures that the embedding is learned of.

    Raises:
        InputError: data without a condition, or that are no grids; settings out of range.
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
        """A plain denoiser's weights become the decoder's, which tells nothing of the embedding apart as it begins."""
        if weights.keys() == net.state_dict().keys():
            super().begin(net, weights)
            return
        assert isinstance(net, StagesNet)  # of `network`
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
        """The losses of decoder, prior and embedding, added, (B,).

        An embedding is told from the others of its piece of a batch: smaller pieces teach it less.
        """
        condition, n, device = Condition.of(condition), len(x0), generator.device
        ratio = self.noise * torch.rand(n, generator=generator, device=device).to(x0)
        seeds = torch.randint(2**62, (n,), generator=generator, device=device).to(x0.device)
        eps = normal(seeds, tuple(x0.shape[1:]), _NOISED).to(x0)
        noisy = x0 + self.problem.unit * ratio.reshape(-1, *[1] * (x0.ndim - 1)) * eps
        assert model.embed is not None  # of `model`
        learned = model.embed.contrast(noisy, condition)
        z = model.embed(x0)
        told = Condition({**condition.dropped(self.silent, generator).parts, EMBEDDING: z})
        decoded = self.problem.objective(model.decoder, x0, told, generator)
        drawn = self.problem.objective(model.prior, z, condition, generator)
        return decoded + drawn + _CONTRAST * learned

    def times(self, n: int, generator: torch.Generator) -> Tensor | None:
        return None  # of prior and decoder others

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
        """The decoder's walk, given embeddings that the prior has drawn, which the first state waits for.

        Those of `like` stay, or of the condition's part `EMBEDDING`. A walk that begins at a given x, and what has been
        made of prior and decoder to fill in or to measure, goes on as the decoder alone. Calls are the decoder's.
        """
        keys, condition = sample_seeds(rows, seed, seeds, generator), Condition.of(condition).matches(rows, "n")

        def decoded(denoiser: Denoiser, given: Condition) -> Iterator[State[Tensor]]:
            how = {"condition": given, "seeds": keys, **options}
            return super(PriorDecoding, self).trajectory(denoiser, rows, stepper, steps, grid, **how)

        if not isinstance(model, PriorAndDecoder):
            return decoded(model, condition)
        given = model.told(condition, rows)
        decoder = model.guided(model.decoder)
        walk = decoded(decoder, given)  # what does not fit is refused now
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
        """The mean of what prior and decoder are judged by, the latter given embeddings of the data themselves."""
        x0 = x0[:JUDGED_BY].to(model.device)
        given = Condition.of(condition)[:JUDGED_BY].to(model.device)
        z = model.embed(x0)
        found = [
            super().judge(model.decoder, x0, Condition({**given.parts, EMBEDDING: z})),
            super().judge(model.prior, z, given),
        ]
        return mean_of(found)
