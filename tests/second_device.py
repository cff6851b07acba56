"""A second device without one: tensors that say they lie on it, compute on the CPU, and refuse what it would refuse.

`second_device()` is a context. Within, `"mps"` is a device: `x.to("mps")`, `model.to("mps")` and
`torch.zeros(3, device="mps")` give `OnDevice` tensors. They are refused (`RuntimeError` or `TypeError`, as torch does)
* together with a CPU tensor, but for a number (no dimensions) in elementwise arithmetic and for copies to and fro,
* in float64, which Apple's GPUs do not have,
* as numpy arrays, and with a CPU generator.

To torch's C++ they are tensors on `meta`, so whatever passes by this file's dispatch fails too, and a backward pass
needs no thread of a device that is not there. Who asks for `meta` itself, as loading a model does, gets it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

DEVICE = torch.device("mps")
_INSIDE = torch.device("meta")  # what torch's C++ is told
_CPU = torch.device("cpu")
_WITHOUT = (torch.float64, torch.complex128)
_COPIES = ("copy_", "_copy_from", "_foreach_copy_", "_foreach_copy", "_to_copy")


class OnDevice(Tensor):
    """A tensor on the second device; `inner` is its content on the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        if inner.dtype in _WITHOUT:
            raise TypeError(f"the second device has no {inner.dtype}: use float32")
        # In inference mode a subclass that is an inference tensor itself cannot be viewed; its content may be one.
        with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
            wrapper: OnDevice = Tensor._make_wrapper_subclass(
                cls,
                inner.shape,
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=_INSIDE,
            )
        wrapper.inner = inner
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(cls, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return DEVICE

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        return False

    @property
    def is_mps(self) -> bool:  # type: ignore[override]
        return True

    @property
    def data(self) -> Tensor:  # type: ignore[override]
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, OnDevice) or value.shape != self.shape:
            raise RuntimeError("`.data` of a tensor on the second device is one of the same device and shape")
        if value.dtype == self.dtype:
            self.inner = value.inner
        else:
            torch.utils.swap_tensors(self, torch.nn.Parameter(value, requires_grad=self.requires_grad))

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of the second device to numpy. Use Tensor.cpu() first")

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"OnDevice({self.inner!r})"


class _Names(TorchFunctionMode):
    """The second device's name → what torch's C++ is told; and whether that one itself was asked for."""

    meta_is_meant = False

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _SPEAKING:
            return func(*args, **kwargs)
        if func in _INDEXING and isinstance(args[0], OnDevice) and isinstance(args[1], list):
            args = (args[0], OnDevice(torch.tensor(args[1])), *args[2:])
        if func in _MAKING and _is_second(kwargs.get("device")):
            made: Tensor = func(*args, **{**kwargs, "device": _CPU})
            return made.to(_INSIDE)
        if not any(isinstance(value, str | torch.device) for value in (*args, *kwargs.values())):
            return func(*args, **kwargs)
        _Names.meta_is_meant = any(map(_is_meta, (*args, *kwargs.values())))
        try:
            return func(*map(_renamed, args), **{name: _renamed(value) for name, value in kwargs.items()})
        finally:
            _Names.meta_is_meant = False


_SPEAKING = (torch.device, torch._C._nn._parse_to)  # of devices: they compute nothing
_INDEXING = (Tensor.__getitem__, Tensor.__setitem__)
_MAKING = (torch.tensor, torch.as_tensor)


def _is_meta(value: Any) -> bool:
    return value == "meta" if isinstance(value, str) else isinstance(value, torch.device) and value == _INSIDE


def _is_second(value: Any) -> bool:
    if isinstance(value, str):
        return value in (DEVICE.type, f"{DEVICE.type}:0")
    return isinstance(value, torch.device) and value.type == DEVICE.type


def _renamed(value: Any) -> Any:
    return _INSIDE if _is_second(value) else value


class _Computing(TorchDispatchMode):
    """Everything that torch computes, with and without tensors of the second device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports the whole compiler, to be told to stay away

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = _tensors((*args, *kwargs.values()))
    here = any(isinstance(tensor, OnDevice) for tensor in tensors)
    asked = kwargs.get("device")
    lands = here if asked is None else torch.device(asked) == _INSIDE and not _Names.meta_is_meant
    if not (here or lands):
        return func(*args, **kwargs)
    if here and func.overloadpacket.__name__ not in _COPIES:
        _refuse_mixed(func, [tensor for tensor in tensors if not isinstance(tensor, OnDevice)])
    if lands and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"{func}: expected a generator of the second device, got one of the CPU")
    plain = {name: _plain(value) for name, value in kwargs.items()}
    if asked is not None:
        plain["device"] = _CPU
    with _RANDOM.used() if torch.Tag.nondeterministic_seeded in func.tags else nullcontext():
        result = func(*map(_plain, args), **plain)
    if func._schema.is_mutable:
        written = _written(func, args, kwargs)
        _require_unchanged(func, written)
        returned = sum(value.alias_info is not None and value.alias_info.is_write for value in func._schema.returns)
        if returned:
            return written[0] if returned == 1 else tuple(written)
    return _wrapped(result) if lands else result


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    """Those among an operation's arguments, also within its lists."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += [item for item in value if isinstance(item, Tensor)]
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, OnDevice):
        return value.inner
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def _wrapped(value: Any) -> Any:
    if isinstance(value, Tensor):
        return OnDevice(value)
    return type(value)(map(_wrapped, value)) if type(value) in (list, tuple) else value


def _refuse_mixed(func: Any, others: Sequence[Tensor]) -> None:
    if not others:
        return
    scalars = torch.Tag.pointwise in func.tags
    for tensor in others:
        if tensor.dim() or not scalars:
            raise RuntimeError(
                f"{func}: expected all tensors to be on the second device, found one on {tensor.device} of shape "
                f"{tuple(tensor.shape)}"
            )


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that the operation writes to, in the order of its arguments."""
    found: list[Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            found += _tensors((args[position] if position < len(args) else kwargs.get(argument.name),))
    return found


def _require_unchanged(func: Any, written: Sequence[Tensor]) -> None:
    for tensor in written:
        if isinstance(tensor, OnDevice) and tensor.inner.shape != tensor.shape:
            raise NotImplementedError(f"{func} changes the shape of a tensor in place")


class _Random:
    """The second device's own random numbers: seeding the CPU's does nothing for them."""

    def __init__(self) -> None:
        self.seed(0)

    def seed(self, seed: int) -> None:
        self.state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def used(self) -> Iterator[None]:
        before = torch.default_generator.get_state()
        torch.default_generator.set_state(self.state)
        try:
            yield
        finally:
            self.state = torch.default_generator.get_state()
            torch.default_generator.set_state(before)


_RANDOM = _Random()


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Within: there is a second device."""
    with (
        mock.patch.object(torch.mps, "manual_seed", _RANDOM.seed),
        _Names(),
        _Computing(),
    ):
        yield DEVICE
