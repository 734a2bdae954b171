"""How likely data are under a model: `log_likelihood`, of any denoiser on any clock.

flow.py      the density of a point in model space, along the probability-flow ODE
end.py       the distribution of noisy data where the flow ends
digital.py   data with levels: noise that fills their bins, uniform or fitted
through.py   data by their latents: a bound through the codec
measure.py   all of these, in the data's own units
"""

from ornstein.likelihood.digital import BinNoise, Dequantiser, fit_dequantiser, uniform_noise
from ornstein.likelihood.flow import DOUBLINGS, EXACT_UP_TO, STEPS, TRACES, LogLikelihood
from ornstein.likelihood.measure import log_likelihood

__all__ = [
    "DOUBLINGS",
    "EXACT_UP_TO",
    "STEPS",
    "TRACES",
    "BinNoise",
    "Dequantiser",
    "LogLikelihood",
    "fit_dequantiser",
    "log_likelihood",
    "uniform_noise",
]
