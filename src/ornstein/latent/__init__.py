"""Models in a space of latents: codecs that tell data in fewer numbers, and what teaches them.

`ornstein.core.codec` is the contract. `codec.py` has a trained autoencoder and an invertible linear map as such,
`objective.py` what teaches one, `learner.py` the line in `LEARNERS`.
"""

from ornstein.latent.codec import LinearCodec, NetCodec
from ornstein.latent.learner import Autoencoding
from ornstein.latent.objective import Reconstruction

__all__ = ["Autoencoding", "LinearCodec", "NetCodec", "Reconstruction"]
