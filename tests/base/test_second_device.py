"""The stand-in for a device refuses what a device refuses, so that the tests on it mean something."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.second_device import DEVICE, OnDevice, second_device


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here: here + torch.ones(3),
        lambda here: torch.cat([here, torch.ones(3)]),
        lambda here: torch.stack([here.sum(), torch.tensor(1.0)]),  # a number is no exception outside of arithmetic
        lambda here: here.index_select(0, torch.tensor([0])),
        lambda here: here[torch.tensor([0])],
        lambda here: here.add_(torch.ones(3)),
        lambda here: nn.functional.linear(here, torch.ones(2, 3)),
        lambda here: torch.arange(3)[here.long()],
        lambda here: nn.Linear(3, 2)(here),
        lambda here: (nn.Linear(3, 2).to(DEVICE)(here) - torch.zeros(2)).sum(),
    ],
)
def test_a_cpu_tensor_beside_one_of_the_device_is_refused(mixed: Callable[[Tensor], object]) -> None:
    with second_device() as device, pytest.raises(RuntimeError, match="to be on the second device, found one on cpu"):
        mixed(torch.ones(3).to(device))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda here: here.double(),
        lambda here: here.sum(dtype=torch.float64),
        lambda here: torch.zeros(2, dtype=torch.float64, device=here.device),
        lambda here: torch.from_numpy(np.zeros(2)).to(here.device),
        lambda here: torch.tensor([1.0], dtype=torch.float64, device=here.device),
        lambda here: here.numpy(),
        lambda here: np.asarray(here),
        lambda here: here.detach().numpy(),
    ],
)
def test_what_the_device_does_not_have_is_refused(wrong: Callable[[Tensor], object]) -> None:
    with second_device() as device, pytest.raises(TypeError, match="second device"):
        wrong(torch.ones(3).to(device))


def test_a_generator_of_the_cpu_is_refused() -> None:
    with second_device() as device, pytest.raises(RuntimeError, match="a generator of the second device"):
        torch.randn(3, device=device, generator=torch.Generator())


def test_random_numbers_of_the_device_are_its_own() -> None:
    def drawn(seed: Callable[[int], object]) -> list[list[float]]:
        found = []
        for _ in range(2):
            seed(3)
            found.append(nn.functional.dropout(torch.ones(64).to(device)).tolist())
        return found

    with second_device() as device:
        first, second = drawn(torch.mps.manual_seed)
        assert first == second
        torch.default_generator.manual_seed(3)
        assert nn.functional.dropout(torch.ones(64)).tolist() == first  # of the same seed, the CPU's numbers
        first, second = drawn(torch.default_generator.manual_seed)
        assert first != second


def test_what_works_on_a_device_works_and_gives_the_cpus_numbers() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    with second_device() as device:
        here = values.to(device)
        assert isinstance(here, OnDevice)
        assert here.device == here[0].device == torch.zeros(1, device="mps").device == DEVICE
        assert not here.is_meta
        assert not here.is_cpu
        assert here.to(device) is here
        assert torch.equal((here * torch.tensor(2.0) + 1).cpu(), values * 2 + 1)  # a number in arithmetic
        here[0] = torch.tensor([7.0, 8.0, 9.0])  # a copy
        here[[1, 0]] += 1
        assert here.tolist() == [[8.0, 9.0, 10.0], [4.0, 5.0, 6.0]]
        assert float(here.sum()) == 42.0
        assert torch.equal(here.T.reshape(-1)[:2].cpu(), torch.tensor([8.0, 4.0]))
    assert torch.zeros(2).device.type == "cpu"


def test_a_model_trains_there_as_on_the_cpu() -> None:
    torch.manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 1)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(8, 3)

    def train(model: nn.Module, given: Tensor) -> None:
        optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            model(given).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()

    train(theirs, inputs)
    with second_device() as device:
        train(ours.to(device), inputs.to(device))
        assert {parameter.device for parameter in ours.parameters()} == {DEVICE}
        ours.cpu()
    for name, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value)
