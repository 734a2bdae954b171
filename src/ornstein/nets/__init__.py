"""Networks: `net(x, noise_level, condition) -> tensor`. They need only torch and know nothing of diffusion.

`NETS` names the configurations. Each is a frozen dataclass, and
`NETS["unet"](channels=32).build((1, 28, 28), {"label": Label(10)})` is an ordinary `torch.nn.Module`. `contract.py`
describes inputs and outputs. To add a net, subclass `NetConfig` in one file and name it here.
"""

from .attention import attend
from .autoencoder import Autoencoder
from .contract import Label, NetConfig, Number, Part, Picture, Tokens, Vector
from .mlp import MLP
from .transformer import Transformer
from .two_way import TwoWay
from .unet import UNET_SIZES, UNet

NETS: dict[str, type[NetConfig]] = {"mlp": MLP, "unet": UNet, "transformer": Transformer}
#: networks that encode a sample in fewer numbers, and decode it: `ornstein.nets.autoencoder`
AUTOENCODERS: dict[str, type[NetConfig]] = {"autoencoder": Autoencoder}
#: those that read a sequence from both ends: `ornstein.nets.two_way`
READERS: dict[str, type[NetConfig]] = {"two-way": TwoWay}

__all__ = [
    "AUTOENCODERS",
    "MLP",
    "NETS",
    "READERS",
    "UNET_SIZES",
    "Autoencoder",
    "Label",
    "NetConfig",
    "Number",
    "Part",
    "Picture",
    "Tokens",
    "Transformer",
    "TwoWay",
    "UNet",
    "Vector",
    "attend",
]
