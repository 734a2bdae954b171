"""Models of what is smaller than the data: latents of a codec, and coarse pictures before fine ones.

`ornstein.core.codec` is the contract of codecs. `codec.py` has a trained autoencoder and an invertible linear map as
such, `objective.py` what teaches one, `learner.py` the line in `LEARNERS`. `cascade.py` draws what is coarse first, and
what is fine given it.
"""

from ornstein.latent.cascade import Cascade, Cascading
from ornstein.latent.codec import LinearCodec, NetCodec
from ornstein.latent.learner import Autoencoding
from ornstein.latent.objective import Reconstruction

__all__ = ["Autoencoding", "Cascade", "Cascading", "LinearCodec", "NetCodec", "Reconstruction"]
