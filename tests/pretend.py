"""A pretend accelerator: what would break or stall on a GPU, found on a CPU.

Tensors live on a device called "pretend", and the CPU does their arithmetic. While it is `posed`, `torch.accelerator`
finds that device, so whatever chooses a device by itself works there.

*Mixing raises.* An operation on tensors of two devices is refused as a GPU refuses it: numbers without dimensions may
come from the CPU where an operation goes element by element, and what moves data moves it. A generator belongs to a
device too, and the device has random numbers of its own.

*Waiting is counted.* A GPU works through a queue. Whenever the host asks for a value (`item`, `tolist`, `if`), copies
to ordinary memory, or makes a shape out of values (`nonzero`, a mask as an index), it waits until the queue is empty.
So it does where it copies *from* ordinary memory, as `torch.tensor(..., device=)` does, or an index on the CPU.
`waits` counts these by the function of the house that asked; on CUDA it asks CUDA's own detector.

torch's registration of a backend in Python is experimental; where it is missing (`POSSIBLE`) nothing can be posed.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import torch
from torch.utils import backend_registration
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

import ornstein

NAME = "pretend"
POSSIBLE = hasattr(backend_registration, "_setup_privateuseone_for_python_backend")
_HOUSE = f"{Path(ornstein.__file__).parent}/"
_aten = torch.ops.aten

#: what ends with a value, or a shape, that the host must know
_ASKING = {
    _aten._local_scalar_dense.default, _aten.is_nonzero.default, _aten.equal.default, _aten.nonzero.default,
    _aten.masked_select.default, _aten._unique2.default, _aten.unique_dim.default, _aten.unique_consecutive.default,
    _aten.bincount.default, _aten.repeat_interleave.Tensor, _aten._linalg_check_errors.default,
    _aten._linalg_eigh.default, _aten._linalg_svd.default,
}  # fmt: skip
_COPYING = {_aten._to_copy.default, _aten.copy_.default}
_FILLING = {_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
_INDEXING = {_aten.index.Tensor, *_FILLING}
_WATCHED = _ASKING | _COPYING | _INDEXING


def _place() -> str | None:
    """The innermost function of the house that is running, as "training/loop.py _Run.account"; None outside it."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(_HOUSE):
        frame = frame.f_back
    if frame is None:
        return None
    return f"{frame.f_code.co_filename.removeprefix(_HOUSE)} {frame.f_code.co_qualname}"


class Away(torch.Tensor):
    """A tensor on the pretend device; `held` is where it really is."""

    held: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: Any, held: torch.Tensor) -> "Away":
        self: Away = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        self.held = held
        return self

    @property
    def data(self) -> torch.Tensor:
        found: torch.Tensor = torch.Tensor.data.__get__(self)  # type: ignore[attr-defined]
        return found

    @data.setter  # type: ignore[override]
    def data(self, value: "Away") -> None:
        torch.Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.held = value.held

    def tolist(self) -> Any:
        _device.wait("tolist")
        return self.held.tolist()

    def __repr__(self, **how: Any) -> str:  # type: ignore[override]
        return f"Away({tuple(self.shape)}, {self.dtype})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _device.run(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Sends what concerns the device to it; the rest goes on as ever."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and to keep the compiler out of each operation costs a fifth of it

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _device.run(func, args, kwargs or {})


class _Event:
    """A place in the device's queue."""

    def record(self) -> None: ...

    def synchronize(self) -> None:
        _device.wait("event")


class _Device:
    """The module that torch asks about the device, and the arithmetic on it."""

    Event = _Event

    def __init__(self) -> None:
        self.registered = self.posed = False
        self.library, self.narrow = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
        self.counters: list[Counter[str]] = []
        self.generators: dict[int, torch.Generator] = {}
        self.state = torch.Generator().manual_seed(1).get_state()

    def is_available(self) -> bool:
        return self.posed

    def device_count(self) -> int:
        return int(self.posed)

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_device_properties(self, device: Any = None) -> Any:
        return SimpleNamespace(name="pretend device", total_memory=2**34)

    def is_bf16_supported(self, including_emulation: bool = True) -> bool:
        return including_emulation

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]

    def manual_seed(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    manual_seed_all = manual_seed

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return self.state

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        self.state = state

    def synchronize(self, device: Any = None) -> None:
        self.wait("synchronize")

    def wait(self, why: str) -> None:
        place = _place() if self.counters else None
        for counter in self.counters if place else ():
            counter[f"{place}: {why}"] += 1

    def run(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation, on the CPU; refused or counted where it must be."""
        asked = kwargs.get("device")
        away: dict[int, Away] = {}
        here: list[torch.Tensor] = []
        dice: Any = None
        for leaf in _leaves((*args, *kwargs.values()), []):
            kind = type(leaf)
            if kind in _PLAIN:  # most are, and of what torch asks of others it takes long to say no
                continue
            if kind is Away:
                away[id(leaf.held)] = leaf
            elif isinstance(leaf, torch.Tensor):
                here.append(leaf)
            elif isinstance(leaf, _REAL):
                dice = leaf
        there = bool(away) if asked is None else torch.device(asked).type == NAME
        if dice is not None and (dice._cdata in self.generators) != there:
            wanted, got = (NAME, "cpu") if there else ("cpu", NAME)
            raise RuntimeError(f"{func} wants a generator on {wanted!r}, not on {got!r}, in {_place()}.")
        if not (away or there):
            return func(*args, **kwargs)
        if here and away:
            _refuse(func, args, here, [*here, *away.values()])
        if func in _WATCHED:
            for why in self.reasons(func, args, kwargs, there):
                self.wait(f"{func}, {why}")
        inner = kwargs if asked is None else {**kwargs, "device": torch.device("cpu")}
        held, named = [_held(each) for each in args], {key: _held(leaf) for key, leaf in inner.items()}
        if there and dice is None and _tagged(func, torch.Tag.nondeterministic_seeded):
            with self.luck():
                out = func(*held, **named)
        else:
            out = func(*held, **named)
        if func is _aten.copy_.default:
            return args[0]
        if away and _tagged(func, torch.Tag.inplace_view):  # the shape of what stands for the tensor changes too
            with no_dispatch():
                return func(*args, **kwargs)
        return _posed(out, away) if there else out

    def reasons(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], there: bool) -> Iterator[str]:
        """Why the host has to wait for an operation, if it has."""
        if func in _ASKING:
            yield "whose values the host asks for"
        if func in _COPYING:
            source = args[1] if func is _aten.copy_.default else args[0]
            target = isinstance(args[0], Away) if func is _aten.copy_.default else there
            flow = kwargs.get("non_blocking") or (func is _aten.copy_.default and len(args) > 2 and args[2])
            if isinstance(source, Away) and not target and not flow:
                yield "to the host"
            if not isinstance(source, Away) and target and not (flow and getattr(source, "pinned", False)):
                yield "from ordinary memory"
        if func in _INDEXING:
            indices = [index for index in args[1] if index is not None]
            fills = func in _FILLING and args[2].numel() == 1  # goes by the mask, element by element
            if not fills and any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                yield "a mask as an index"
            if isinstance(args[0], Away) and any(not isinstance(index, Away) for index in indices):
                yield "an index on the host"

    @contextmanager
    def luck(self) -> Iterator[None]:
        """torch's global generator in the device's state, and back."""
        before = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            yield
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(before)


_device = _Device()
_REAL = torch.Generator
_PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format}


@cache
def _tagged(func: Any, tag: torch.Tag) -> bool:
    return tag in func.tags


def _refuse(func: Any, args: tuple[Any, ...], here: list[torch.Tensor], tensors: list[torch.Tensor]) -> None:
    """Raise where an operation has tensors of two devices, as a GPU does: some are `here`."""
    if func in _COPYING:
        return
    if func in _INDEXING and isinstance(args[0], Away):
        here = [x for x in args[2:3] if not isinstance(x, Away)]
    if _tagged(func, torch.Tag.pointwise) or func in _FILLING:
        here = [x for x in here if x.dim()]
    if here:
        shapes = ", ".join(str(tuple(x.shape)) for x in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but {func} has some on {NAME!r} and some on 'cpu', in "
            f"{_place()} (shapes {shapes})."
        )


def _leaves(arguments: Iterable[Any], into: list[Any]) -> list[Any]:
    for argument in arguments:
        if isinstance(argument, (list, tuple)):
            _leaves(argument, into)
        else:
            into.append(argument)
    return into


def _held(argument: Any) -> Any:
    if isinstance(argument, (list, tuple)):
        return [_held(each) for each in argument]
    return argument.held if isinstance(argument, Away) else argument


def _posed(leaf: Any, away: dict[int, Away]) -> Any:
    """What an operation gave, on the device: the tensor itself where it was changed in place."""
    if isinstance(leaf, (list, tuple)):
        return type(leaf)(_posed(each, away) for each in leaf)
    if not isinstance(leaf, torch.Tensor):
        return leaf
    known = away.get(id(leaf))
    return Away(leaf) if known is None else known


def _make(cls: type[torch.Generator], device: Any = "cpu") -> torch.Generator:
    if torch.device(device).type != NAME:
        return _REAL.__new__(cls, device)  # type: ignore[call-arg]
    made: Any = _REAL.__new__(cls)
    _device.generators[made._cdata] = made
    return cast(torch.Generator, made)


def _where(self: Any) -> torch.device:
    return torch.device(NAME, 0) if self._cdata in _device.generators else torch.device("cpu")


class _Generator(torch.Generator):
    """`torch.Generator` while the device is posed: on "pretend" too."""

    __new__ = _make  # type: ignore[assignment]
    device = property(_where)


def _pin(tensor: torch.Tensor, device: Any = None) -> torch.Tensor:
    pinned = tensor.clone()
    pinned.pinned = True  # type: ignore[attr-defined]
    return pinned


def _empty(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> torch.Tensor:
    return Away(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))


def _fill(self: "Away", source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    _device.wait("numbers of Python's")
    self.held.copy_(source)
    return self


def _register() -> None:
    """Tell torch of the device; once, and for good."""
    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=_device)
    # `torch.tensor(..., device=)` and a list as an index go below what a mode sees, to these two
    _device.library.impl("empty_strided", _empty, "PrivateUse1")
    _device.library.impl("copy_", _fill, "PrivateUse1")
    _device.narrow.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    _device.registered = True


@contextmanager
def posed() -> Iterator[torch.device]:
    """The pretend device at hand, as the accelerator that torch finds. Afterwards there is none again."""
    if not _device.registered:
        _register()
    kinds = [kind for kind in _REAL.__subclasses__() if kind is not _Generator]
    for kind in kinds:
        kind.__new__, kind.device = _make, property(_where)  # type: ignore[assignment, method-assign]
    _device.posed = True
    try:
        with (
            mock.patch.object(torch, "Generator", _Generator),
            mock.patch.object(torch.Tensor, "pin_memory", _pin),
            mock.patch.object(torch.accelerator, "synchronize", _device.synchronize),
            torch.autograd.set_multithreading_enabled(False),  # the device has no thread of its own
            _Mode(),  # type: ignore[no-untyped-call]
        ):
            yield torch.device(NAME, 0)
    finally:
        _device.posed = False
        _device.generators.clear()
        for kind in kinds:
            del kind.__new__, kind.device


@contextmanager
def waits(device: torch.device) -> Iterator[Counter[str]]:
    """Count the times that the host waits for a device, by "file function: why".

    Empty for devices that tell nothing, which are all but "pretend" and CUDA.
    """
    counter: Counter[str] = Counter()
    if device.type == NAME:
        _device.counters.append(counter)
        try:
            yield counter
        finally:
            _device.counters.remove(counter)
    elif device.type == "cuda":
        before = torch.cuda.get_sync_debug_mode()

        def note(message: Any, *_: Any, **__: Any) -> None:
            if "synchroni" in str(message) and (place := _place()):
                counter[f"{place}: CUDA"] += 1

        with warnings.catch_warnings(), mock.patch.object(warnings, "showwarning", note):
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                yield counter
            finally:
                torch.cuda.set_sync_debug_mode(before)
    else:
        yield counter
