"""Where the arithmetic is done: the one rule by which every command chooses its device."""

from __future__ import annotations

import os

import torch

from taxadiffusion.errors import SettingsError

DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")


def chosen_device(asked: str = "auto", *, cpu_only: str | None = None) -> torch.device:
    """`auto`: CUDA where this torch sees a GPU, else Apple's (mps), else the CPU; or exactly what is asked for.

    A process that `accelerate launch` started takes the GPU of its number on this machine, and the CPU where it was
    launched with `--cpu` and no device is asked for. cpu_only: what computes on a CPU alone, in words; `auto` is then
    the CPU. Raises `SettingsError` for a device that is not there.
    """
    if asked not in DEVICE_NAMES:
        raise SettingsError(f"--device {asked!r} is none of {', '.join(DEVICE_NAMES)}")
    if cpu_only is not None:
        if asked not in ("auto", "cpu"):
            raise SettingsError(f"{cpu_only} computes on a CPU alone, not with --device {asked}: leave one of them out")
        return torch.device("cpu")
    there = present()
    if asked == "auto":
        asked = "cpu" if _launched_for_cpu() else there[0]
    if asked not in there:
        raise SettingsError(
            f"--device {asked}: torch {torch.__version__} sees no such device here, only {' and '.join(there)}; choose "
            "one of these, or install a torch that is built for yours (https://pytorch.org/get-started/locally)"
        )
    return _own_gpu() if asked == "cuda" else torch.device(asked)


def present() -> tuple[str, ...]:
    """The kinds of device that this torch can use on this machine, fastest first; the CPU is always the last."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return tuple(kind for kind, there in found.items() if there)


def described(device: torch.device) -> str:
    """The device in words: "cuda:0 (NVIDIA H100)", "cpu"."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator that dropout draws from there. (`torch.manual_seed` seeds every device and is slow.)"""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.get_device_module(device).manual_seed(seed)


def _launched_for_cpu() -> bool:
    return os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes", "y", "on", "t")


def _own_gpu() -> torch.device:
    own, number = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if own >= number:
        raise SettingsError(
            f"process {own + 1} of this machine has no GPU of its own, there are {number}: launch at most as many "
            "processes, or take --device cpu"
        )
    return torch.device("cuda", own)
