"""Steppers: how to get from noise to data. One file per family; `STEPPERS` (in `named.py`) names them."""

from ornstein.samplers.ancestral import DDIM, DDPM
from ornstein.samplers.corrector import PredictorCorrector
from ornstein.samplers.encode import encode
from ornstein.samplers.exponential import DEIS, DPMpp2M, Multistep
from ornstein.samplers.flow import Euler, Heun
from ornstein.samplers.langevin import AnnealedLangevin, RecoveryLangevin
from ornstein.samplers.named import DEFAULT_STEPPER, sample, trajectory
from ornstein.samplers.plms import PLMS
from ornstein.samplers.runge_kutta import RK4, Adaptive
from ornstein.samplers.sde import DPMpp2MSDE, EulerMaruyama, ReverseDiffusion
from ornstein.samplers.single_step import DPMSolver
from ornstein.samplers.table import STEPPERS, stepper_named
from ornstein.samplers.tuned import Tuned
from ornstein.samplers.unipc import UniPC, UniPCAuto

__all__ = [
    "DDIM",
    "DDPM",
    "DEFAULT_STEPPER",
    "DEIS",
    "PLMS",
    "RK4",
    "STEPPERS",
    "Adaptive",
    "AnnealedLangevin",
    "DPMSolver",
    "DPMpp2M",
    "DPMpp2MSDE",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Multistep",
    "PredictorCorrector",
    "RecoveryLangevin",
    "ReverseDiffusion",
    "Tuned",
    "UniPC",
    "UniPCAuto",
    "encode",
    "sample",
    "stepper_named",
    "trajectory",
]
