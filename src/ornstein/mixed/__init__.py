"""Products of processes: data of several named parts, numbers and categories, each dissolved by a clock of its own.

`Joint` is the contract, `Independent` what it is of models that know nothing of each other, `draw_parts` the walk.
"""

from ornstein.mixed.drive import draw_parts
from ornstein.mixed.exact import NumbersOfAClass
from ornstein.mixed.learner import MIXED_OBJECTIVES, Mixed, Product
from ornstein.mixed.parts import Independent, Joint, Part, Parts

__all__ = [
    "MIXED_OBJECTIVES",
    "Independent",
    "Joint",
    "Mixed",
    "NumbersOfAClass",
    "Part",
    "Parts",
    "Product",
    "draw_parts",
]
