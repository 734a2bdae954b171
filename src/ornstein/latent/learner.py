"""What the run of a codec learns: to encode a sample in fewer numbers, and to decode it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ornstein.core.condition import Given
from ornstein.core.learner import JUDGED_BY, LEVELS, Judgement, Learner, Measure
from ornstein.core.process import Process
from ornstein.errors import InputError
from ornstein.latent.codec import NetCodec
from ornstein.latent.objective import CODEC_OBJECTIVES
from ornstein.nets import AUTOENCODERS, NetConfig
from ornstein.nets.autoencoder import AutoencoderModule
from ornstein.nets.patches import Patches


@dataclass(frozen=True)
class Clean(Process):
    """No noise at any time: an autoencoder sees clean data."""

    @property
    def t_max(self) -> float:  # type: ignore[override]
        return 1.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return torch.zeros_like(t)


@dataclass(frozen=True, eq=False)
class Autoencoding(Learner):
    """A codec (`ornstein.core.codec`): not a model of the data, but an encoder for models of its latents."""

    readings: ClassVar[Mapping[str, str]] = {
        "itself": "The data, as decoded from their latents (Kingma & Welling 2014)."
    }
    objectives: ClassVar[Mapping[str, Callable[..., Any]]] = CODEC_OBJECTIVES
    processes: ClassVar[Mapping[str, Callable[..., Any]]] = {"clean": Clean}
    nets: ClassVar[Mapping[str, type[NetConfig]]] = AUTOENCODERS
    draws: ClassVar[bool] = False
    then: ClassVar[str] = "ornstein evaluate {run}     ornstein train DATA preset=latent data.codec={run}"
    judges: ClassVar[Measure] = Measure(
        "error-by-example", "mean absolute error of a number", "the mean of all examples", "the mean of all",
        across="per cent of the examples that are read back better",
    )  # fmt: skip

    def __post_init__(self) -> None:
        problem = self.problem
        if len(problem.shape) < 2 or problem.categories is not None or problem.gaps or problem.far is not None:
            raise InputError(
                "learner='codec' needs complete signals, pictures or volumes, in which neighbours depend on each "
                "other; these data are not such."
            )
        features = getattr(problem.objective, "features", 0)
        if features and (len(problem.shape) != 3 or problem.shape[0] not in (1, 3, 4)):
            raise InputError(
                f"objective.features={features!r} compares pictures of 1, 3 or 4 channels, and a sample of these data "
                f"has shape {problem.shape}; take 0."
            )

    @property
    def told(self) -> Mapping[str, Any]:
        return {}

    def network(self, build: Callable[..., nn.Module], seed: int = 0) -> nn.Module:
        net = super().network(build, seed)
        if getattr(self.problem.objective, "adversarial", 0):
            assert isinstance(net, AutoencoderModule)  # of `nets`
            net.judge = Patches().build(self.problem.shape, seed=seed)
        return net

    def model(self, net: nn.Module) -> NetCodec:
        return NetCodec(net)  # type: ignore[arg-type]

    @torch.no_grad()
    def judge(self, model: NetCodec, x0: Tensor, condition: Given) -> Judgement:
        """The error on held-out data, relative to that of their mean; `found` is from the best example to the worst."""
        x0 = x0[:JUDGED_BY].to(model.device)
        each = (model.decode(model.encode(x0).mean) - x0).abs().flatten(1).mean(1)
        known = (x0.mean(0) - x0).abs().flatten(1).mean(1)
        if not bool(known.any()):  # all alike, as a single one is: then 1 is the error of a Gaussian's mean
            known += math.sqrt(2 / math.pi) * self.problem.sigma_data
        places = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
        found, blind = (values.double().cpu().quantile(places).tolist() for values in (each, known))
        return Judgement(float(each.mean() / known.mean()), (100 * places).tolist(), found, blind)
