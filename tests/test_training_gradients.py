"""The gradients of a pretraining step: a replayed graph of copies leaves what the networks themselves leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from training import networks
from training.corpus import Examples
from training.gradients import Gradients, ReplayedGradients, gradients_on
from training.state import Learner

TOKENS = networks.Tokens(bos=0, eos=1, pad=2, any=3, layout=4, vocab=16)
ALPHAS = networks.scheduler().alphas_cumprod
WEIGHTS = (1.0, 0.35)


class OnCPU(ReplayedGradients):
    """Without a graph: what would be captured is called."""

    copies_in = torch.float32

    @staticmethod
    def captured(work: Callable[[], None]) -> Callable[[], None]:
        return work


class InBfloat16(OnCPU):
    copies_in = torch.bfloat16


def learner(monkeypatch: pytest.MonkeyPatch) -> Learner:
    monkeypatch.setattr(networks, "CHANNELS", (32, 32))
    monkeypatch.setattr(networks, "HEADS", (2, 2))
    torch.manual_seed(0)
    model = nn.ModuleDict({"unet": networks.unet(16), "text": networks.text_encoder(TOKENS)})
    model["unet"].to(memory_format=torch.channels_last)
    return Learner(model, 1e-3)


def examples(step: int) -> list[Examples]:
    made = []
    for side, count in ((16, 3), (8, 2)):
        draw = torch.Generator().manual_seed(step)
        latents, noise = (torch.randn(count, 16, side, side, generator=draw) for _ in range(2))
        ids = torch.randint(16, (count, networks.NUM_TOKENS), generator=draw)
        made.append(Examples(latents, ids, torch.randint(1000, (count,), generator=draw), noise))
    return made


def after(kind: type[Gradients], monkeypatch: pytest.MonkeyPatch, num_steps: int = 3) -> tuple[Any, list[float]]:
    one = learner(monkeypatch)
    gradients, losses = kind(one, ALPHAS, WEIGHTS), []
    for step in range(num_steps):
        losses.append(float(gradients(examples(step))))
        one.advance(1e-3, 3)
    return [p.detach() for p in one.parameters], losses


@pytest.fixture
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "multiplies_in_bfloat16", lambda _: False)


@pytest.mark.usefixtures("in_float32")
def test_copies_of_the_same_precision_learn_the_same_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, losses = after(Gradients, monkeypatch)
    replayed, again = after(OnCPU, monkeypatch)
    assert losses == again
    assert all(torch.equal(a, b) for a, b in zip(plain, replayed, strict=True))


@pytest.mark.usefixtures("in_float32")
def test_copies_in_bfloat16_differ_by_rounding_and_the_weights_stay_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    _, losses = after(Gradients, monkeypatch)
    weights, rounded = after(InBfloat16, monkeypatch)
    assert {w.dtype for w in weights} == {torch.float32}
    assert rounded == pytest.approx(losses, rel=0.02)


def test_a_step_without_finite_gradients_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    one = learner(monkeypatch)
    gradients = Gradients(one, ALPHAS, WEIGHTS)
    gradients(examples(0))
    one.advance(1e-3, 3)
    before = [p.detach().clone() for p in one.parameters]
    gradients(examples(1))
    next(p for p in one.parameters if p.grad is not None).grad.fill_(float("nan"))  # type: ignore[union-attr]
    one.advance(1e-3, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters, strict=True))


def test_a_gpu_replays_and_a_cpu_does_not() -> None:
    assert gradients_on(torch.device("cuda")) is ReplayedGradients
    assert gradients_on(torch.device("cpu")) is Gradients


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_graph_computes_what_its_kernels_do_uncaptured(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda")

    class Uncaptured(ReplayedGradients):
        captured = staticmethod(OnCPU.captured)

    found = []
    for kind in (Uncaptured, ReplayedGradients):
        one = learner(monkeypatch)
        one = Learner(one.model.to(device), 1e-3)
        gradients = kind(one, ALPHAS.to(device), WEIGHTS)
        for step in range(3):
            loss = gradients([Examples(*(t.to(device) for t in e.tensors)) for e in examples(step)])
            one.advance(1e-3, 3)
        found.append(float(loss))
    assert found[0] == pytest.approx(found[1], rel=0.01)
