"""Models of something smaller than the data: the latents of a codec, or coarse pictures before fine ones.

`ornstein.core.codec` is the contract of codecs. `codec.py` has two: a trained autoencoder and an invertible linear map.
`objective.py` has the objective of the autoencoder, `learner.py` its entry in `LEARNERS`. `cascade.py` draws a coarse
picture first, and a fine one given it.
"""

from ornstein.latent.cascade import Cascade, Cascading
from ornstein.latent.codec import LinearCodec, NetCodec
from ornstein.latent.learner import Autoencoding
from ornstein.latent.objective import Reconstruction

__all__ = ["Autoencoding", "Cascade", "Cascading", "LinearCodec", "NetCodec", "Reconstruction"]
