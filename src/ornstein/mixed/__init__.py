"""Products of processes: data of several named parts, numbers and categories, each dissolved on a clock of its own.

`Joint` is the contract, `Independent` a product of models that know nothing of each other, `draw_parts` the walk.
`prior.py` walks the parts one after the other: an embedding of a picture first, then the picture given it.
"""

from ornstein.mixed.drive import draw_parts
from ornstein.mixed.exact import NumbersOfAClass
from ornstein.mixed.learner import MIXED_OBJECTIVES, Mixed, Product
from ornstein.mixed.parts import Independent, Joint, Part, Parts
from ornstein.mixed.prior import EMBEDDING, PriorAndDecoder, PriorDecoding

__all__ = [
    "EMBEDDING",
    "MIXED_OBJECTIVES",
    "Independent",
    "Joint",
    "Mixed",
    "NumbersOfAClass",
    "Part",
    "Parts",
    "PriorAndDecoder",
    "PriorDecoding",
    "Product",
    "draw_parts",
]
