"""The gradients of a pretraining step: on a CPU as torch computes them, on a CUDA device by a graph that is replayed.

Networks as small as these wait on a GPU for their launches, and for norms that autocast computes in float32. There
the step is computed by a copy of the networks in bfloat16, and its kernels are captured once (CUDA graphs); the
learner keeps float32 weights, which the optimiser moves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from training.corpus import Examples
from training.networks import arithmetic
from training.state import Learner

# B batch, C latent channels, h × w latents

Predict = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Noisy latents (B, C, h, w), timesteps (B,), token ids → v (B, C, h, w)."""


def v_loss(predict: Predict, alphas: Tensor, examples: Examples) -> Tensor:
    """Mean squared error of v (Salimans & Ho 2022), in float32."""
    latents, noise = examples.latents, examples.noise
    a = alphas[examples.timesteps].view(-1, 1, 1, 1)
    noisy, v = a.sqrt() * latents + (1 - a).sqrt() * noise, a.sqrt() * noise - (1 - a).sqrt() * latents
    out = predict(noisy.contiguous(memory_format=torch.channels_last), examples.timesteps, examples.ids)
    return functional.mse_loss(out.float(), v)


def prediction(model: nn.ModuleDict) -> Predict:
    """By the networks "unet" and "text", in bfloat16 where the device does well in it."""

    def predict(noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        with arithmetic(noisy.device):
            states = model["text"](input_ids=ids)[0]
            return cast(Tensor, model["unet"](noisy, timesteps, encoder_hidden_states=states).sample)

    return predict


class Gradients:
    """Leaves a step's gradients in the learner's parameters. → the loss of the first examples.

    Called with examples of each size, of the same shapes in every step; `weights` say what each size's loss counts.
    """

    def __init__(self, learner: Learner, alphas: Tensor, weights: Sequence[float]) -> None:
        self.learner, self.alphas, self.weights = learner, alphas, weights

    def __call__(self, examples: Sequence[Examples]) -> Tensor:
        return self.backward(prediction(self.learner.model), examples)

    def backward(self, predict: Predict, examples: Sequence[Examples]) -> Tensor:
        losses = []
        for given, weight in zip(examples, self.weights, strict=True):
            loss = v_loss(predict, self.alphas, given)
            (weight * loss).backward()
            losses.append(loss.detach())
        return losses[0]


class ReplayedGradients(Gradients):
    """The same on a CUDA device, by bfloat16 copies of the networks and one graph."""

    copies_in = torch.bfloat16

    def __init__(self, learner: Learner, alphas: Tensor, weights: Sequence[float]) -> None:
        super().__init__(learner, alphas, weights)
        self.copies = copy.deepcopy(learner.model).to(self.copies_in)
        self._weights = list(self.copies.parameters())
        self._kept: list[Tensor] = []
        self._static: tuple[Examples, ...] = ()
        self._loss = torch.zeros(())
        self._replay: Callable[[], None] | None = None

    def __call__(self, examples: Sequence[Examples]) -> Tensor:
        torch._foreach_copy_([p.detach() for p in self._weights], [p.detach() for p in self.learner.parameters])
        if self._replay is None:
            self._static = tuple(Examples(*(t.clone() for t in given.tensors)) for given in examples)
            self._replay = self.captured(self._compute)
        for static, given in zip(self._static, examples, strict=True):
            for to, value in zip(static.tensors, given.tensors, strict=True):
                to.copy_(value)
        self._replay()
        found = [(p, own.grad) for p, own in zip(self.learner.parameters, self._weights, strict=True)]
        learnt = [(p, grad) for p, grad in found if grad is not None]
        self._kept = self._kept or [torch.empty_like(p) for p, _ in learnt]
        torch._foreach_copy_(self._kept, [grad for _, grad in learnt])
        for (p, _), kept in zip(learnt, self._kept, strict=True):
            p.grad = kept
        return self._loss.clone()

    def _compute(self) -> None:
        for p in self._weights:
            p.grad = None
        self._loss = self.backward(self._predict, self._static)

    def _predict(self, noisy: Tensor, timesteps: Tensor, ids: Tensor) -> Tensor:
        states = self.copies["text"](input_ids=ids)[0]
        return cast(
            Tensor,
            self.copies["unet"](noisy.to(self.copies_in), timesteps, encoder_hidden_states=states).sample,
        )

    @staticmethod
    def captured(work: Callable[[], None]) -> Callable[[], None]:
        """Kernels of `work` as one graph; what it reads and writes stays where it is."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):  # libraries choose their kernels and memory before anything is captured
                work()
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph.replay


def gradients_on(device: torch.device) -> type[Gradients]:
    return ReplayedGradients if device.type == "cuda" else Gradients
