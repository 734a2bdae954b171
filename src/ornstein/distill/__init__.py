"""What a trained model teaches: solvers and networks of few calls, and whatever renders into data like its own.

A sampler of many steps is a teacher, and whatever comes near its results in K calls is a student. A student need not be
a network. If the teacher's own network is kept, only K levels (`grid`: the cheapest walk through a table of costs) and
the weights of a multistep method on them (`solver`) are learned, about K^2/2 numbers. A student that is a network
(`students`) starts as a copy of the teacher and is trained to predict where the walk goes; or its whole walk of K calls
is trained, network and solver together (`endpoint`).

A student need not draw samples at all: pixels, strokes or a volume (`renderers`) are optimised until the teacher knows
what is rendered of them (`score`).
"""

from ornstein.core.drive import Stepper
from ornstein.distill.endpoint import Endpoint as Endpoint
from ornstein.distill.grid import best_grid as best_grid
from ornstein.distill.ladder import Remembered as Remembered
from ornstein.distill.ladder import Renoise
from ornstein.distill.ladder import grid as grid
from ornstein.distill.moments import RUNG as RUNG
from ornstein.distill.moments import Assisted as Assisted
from ornstein.distill.moments import Moments as Moments
from ornstein.distill.renderers import RENDERERS as RENDERERS
from ornstein.distill.renderers import Renderer as Renderer
from ornstein.distill.score import LAWS as LAWS
from ornstein.distill.score import SCORE_DISTILLATIONS as SCORE_DISTILLATIONS
from ornstein.distill.score import ScoreDistillation as ScoreDistillation
from ornstein.distill.score import dream as dream
from ornstein.distill.solver import endpoint_error as endpoint_error
from ornstein.distill.solver import fit_endpoint as fit_endpoint
from ornstein.distill.students import CALLS as CALLS
from ornstein.distill.students import Consistency, Progressive, Rectified
from ornstein.distill.students import Distillation as Distillation
from ornstein.distill.students import with_calls as with_calls
from ornstein.samplers import DDIM, UniPCAuto

#: what teaches students, by name
DISTILLATIONS: dict[str, type[Distillation]] = {
    "endpoint": Endpoint,
    "progressive": Progressive,
    "consistency": Consistency,
    "rectified": Rectified,
    "moments": Moments,
}
#: how students are drawn from, by name
STUDENT_STEPPERS: dict[str, type[Stepper]] = {"ddim": DDIM, "renoise": Renoise, "unipc-auto": UniPCAuto}
