"""Fewer steps: the best samples that a trained model can give for K network calls.

A sampler of many steps is a teacher, and whatever comes near its results in K calls is a student. A student need not be
a network. If the teacher's own network is kept, only K levels (`grid`: the cheapest walk through a table of costs) and
the weights of a multistep method on them (`solver`) are learned, about K^2/2 numbers. A student that is a network
(`students`) starts as a copy of the teacher and is trained to predict where the walk goes.
"""

from ornstein.distill.grid import best_grid as best_grid
from ornstein.distill.ladder import Remembered as Remembered
from ornstein.distill.ladder import grid as grid
from ornstein.distill.solver import endpoint_error as endpoint_error
from ornstein.distill.solver import fit_endpoint as fit_endpoint
from ornstein.distill.students import CALLS as CALLS
from ornstein.distill.students import DISTILLATIONS as DISTILLATIONS
from ornstein.distill.students import STUDENT_STEPPERS as STUDENT_STEPPERS
from ornstein.distill.students import Distillation as Distillation
from ornstein.distill.students import with_calls as with_calls
