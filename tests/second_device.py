"""A second device without one: tensors that say they lie on it, compute on the CPU, and refuse what it would refuse.

`second_device()` is a context. Within, `"mps"` is a device: `x.to("mps")`, `model.to("mps")` and
`torch.zeros(3, device="mps")` give `OnDevice` tensors. They are refused (`RuntimeError` or `TypeError`, as torch does)
* together with a CPU tensor, but for a number (no dimensions) in elementwise arithmetic and for copies to and fro,
* in float64, which Apple's GPUs do not have,
* as numpy arrays, and with a CPU generator.

To torch's C++ they are tensors on `meta`, so whatever passes by this file's dispatch fails too, and a backward pass
needs no thread of a device that is not there. `device="meta"` within the context is the second device as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

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
        if not isinstance(value, OnDevice) or value.shape != self.shape or value.dtype != self.dtype:
            raise RuntimeError("`.data` of a tensor on the second device is one of the same device, shape and type")
        self.inner = value.inner

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of the second device to numpy. Use Tensor.cpu() first")

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"OnDevice({self.inner!r})"


class _Names(TorchFunctionMode):
    """The second device's name → what torch's C++ is told."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor) and _renamed(kwargs.get("device")) == _INSIDE:
            made: Tensor = func(*args, **{**kwargs, "device": _CPU})
            return made.to(_INSIDE)
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], OnDevice):
            index = OnDevice(torch.tensor(args[1])) if isinstance(args[1], list) else args[1]
            args = (args[0], index, *args[2:])
        return func(*tree_map(_renamed, args), **tree_map(_renamed, kwargs))


def _renamed(value: Any) -> Any:
    if (isinstance(value, torch.device) and value.type == DEVICE.type) or (
        isinstance(value, str) and value in (DEVICE.type, f"{DEVICE.type}:0")
    ):
        return _INSIDE
    return value


class _Computing(TorchDispatchMode):
    """Everything that torch computes, with and without tensors of the second device."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first operation imports the whole compiler, to be told to stay away

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    here = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
    asked = kwargs.get("device")
    lands = asked is not None and torch.device(asked) == _INSIDE if asked is not None else bool(here)
    if not (here or lands):
        return func(*args, **kwargs)
    name = func.overloadpacket.__name__
    if here and name not in _COPIES:
        _refuse_mixed(func, [tensor for tensor in tensors if not isinstance(tensor, OnDevice)])
    if lands and any(isinstance(leaf, torch.Generator) for leaf in tree_leaves((args, kwargs))):
        raise RuntimeError(f"{func}: expected a generator of the second device, got one of the CPU")
    plain_args, plain_kwargs = tree_map(_plain, (args, kwargs))
    if asked is not None:
        plain_kwargs["device"] = _CPU
    result = func(*plain_args, **plain_kwargs)
    if written := _written(func, args, kwargs):
        _require_unchanged(func, written)
        returns = [r for r in func._schema.returns if r.alias_info is not None and r.alias_info.is_write]
        return written[0] if len(returns) == 1 else result if not returns else tuple(written)
    return tree_map(lambda leaf: OnDevice(leaf) if isinstance(leaf, Tensor) and lands else leaf, result)


def _plain(leaf: Any) -> Any:
    return leaf.inner if isinstance(leaf, OnDevice) else leaf


def _refuse_mixed(func: Any, others: Sequence[Tensor]) -> None:
    scalars = torch.Tag.pointwise in func.tags
    wrong = [tensor for tensor in others if tensor.dim() or not scalars]
    if wrong:
        raise RuntimeError(
            f"{func}: expected all tensors to be on the second device, found one on {wrong[0].device} of shape "
            f"{tuple(wrong[0].shape)}"
        )


def _written(func: Any, args: Any, kwargs: dict[str, Any]) -> list[Tensor]:
    """The tensors that the operation writes to, in the order of its arguments."""
    found: list[Tensor] = []
    for position, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[position] if position < len(args) else kwargs.get(argument.name)
            found += [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
    return found


def _require_unchanged(func: Any, written: Sequence[Tensor]) -> None:
    for tensor in written:
        if isinstance(tensor, OnDevice) and (tensor.inner.shape != tensor.shape):
            raise NotImplementedError(f"{func} changes the shape of a tensor in place")


@contextmanager
def second_device() -> Iterator[torch.device]:
    """Within: there is a second device; its generator is the CPU's."""
    with (
        mock.patch.object(torch.mps, "manual_seed", lambda seed: torch.default_generator.manual_seed(seed)),
        _Names(),
        _Computing(),
    ):
        yield DEVICE
