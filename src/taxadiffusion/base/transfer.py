"""Tensors on their way to and from a device without waiting for it, and the arithmetic that a device does well."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from taxadiffusion.errors import SettingsError


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on `device`. To a CUDA device the copy is only asked for: what is queued there goes on meanwhile.

    A plain `.to(device)`, and `torch.tensor(…, device=…)`, wait until the device has done all that it was given.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device)
    return _pinned(tensor).to(device, non_blocking=True)


def _pinned(tensor: Tensor) -> Tensor:
    return tensor.pin_memory()


class Reading:
    """Numbers of a device that are read later: the copy is asked for at once, `values` waits for it alone."""

    def __init__(self, numbers: Tensor) -> None:
        self._arrived: torch.cuda.Event | None = None
        if numbers.device.type == "cuda":
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._arrived.record()
        else:
            self._numbers = numbers

    def values(self) -> list[float]:
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._numbers.tolist()


@contextmanager
def memory_faults(what: str, remedy: str) -> Iterator[None]:
    """Turn a failed allocation, on a GPU or a CPU, into one `SettingsError`: `what` did not fit, and what to set."""
    try:
        yield
    except RuntimeError as error:
        # A GPU's has its own class; a CPU's is told by its words alone.
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        raise SettingsError(f"out of memory with {what}: {remedy}") from error


def use_fast_arithmetic(device: torch.device) -> None:
    """Let float32 products on a CUDA device use TF32 (10 bits of mantissa): what is in float32 there needs no more.

    The setting belongs to the process. A run calls it where it starts; nothing is set for another kind of device.
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def good_precision(device: torch.device) -> torch.dtype:
    """bfloat16 where a CUDA device multiplies in it by itself, else float32."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32


def multiplies_in_bfloat16(device: torch.device) -> bool:
    """Whether it does so by itself; a CPU without AMX or AVX-512 BF16 takes many times as long as in float32."""
    if device.type == "cpu":
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return good_precision(device) == torch.bfloat16


def arithmetic(
    device: torch.device, chosen: torch.dtype | None, weights: torch.dtype
) -> AbstractContextManager[object]:
    """In which a U-Net computes: `chosen`, where its weights are float32 for they learn; else that of its weights.

    A LoRA learns in float32; beside weights in bfloat16, its products too are made in bfloat16.
    """
    beside = weights if torch.is_grad_enabled() and weights != torch.float32 else None
    dtype = chosen or beside
    return torch.autocast(device.type, dtype) if dtype else nullcontext()
