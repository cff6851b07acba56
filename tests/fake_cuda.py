"""A GPU that is not there: tensors that say they are on it and hold no numbers, so that reading one is an error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from taxadiffusion.base import transfer

CUDA = torch.device("cuda", 0)


class NumbersOnTheirWay:
    """Instead of `Reading`: what is asked for is never read."""

    def __init__(self, numbers: Tensor) -> None:
        assert numbers.device == CUDA


def simulate(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """Within the mode a tensor of `CUDA` has a shape, a type and a device. `.item()`, and whatever decides by a number
    of the device, raises; so does an operation on tensors of two devices. Backward passes need a real device."""
    monkeypatch.setattr(transfer, "_pinned", lambda tensor: tensor)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)  # noqa: ARG005
    monkeypatch.setattr("taxadiffusion.trainer.gradients.Reading", NumbersOnTheirWay)
    return FakeTensorMode(allow_non_fake_inputs=True)


def put_on_it(module: nn.Module) -> None:
    """Within the mode: every parameter and buffer as one of the simulated device."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(_there(parameter), requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _there(buffer)


def _there(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=CUDA)


class Copies(TorchDispatchMode):
    """Counts copies to the device that wait for it, and those that do not."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = 0
        self.asked_for = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is torch.ops.aten._to_copy.default and given.get("device") not in (None, args[0].device):
            if given.get("non_blocking"):
                self.asked_for += 1
            else:
                self.waiting += 1
        return func(*args, **given)
