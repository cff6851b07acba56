"""How close the U-Net comes to what the machine can multiply, and which share of a step is the U-Net at all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.ours import OurStep
from benchmarks.timing import Clock, timed
from taxadiffusion.base.attention import Conditions


@dataclass(frozen=True, slots=True)
class Roofline:
    forward_flops: float  # per second, achieved
    backward_flops: float
    matmul_flops: float  # of plain products of the shapes of the U-Net's layers
    unet_share: float  # of a whole step's time


def roofline(step: OurStep, clock: Clock, num_runs: int) -> Roofline:
    """Of the stage that `step` has begun. FLOP as torch counts them (two per multiply-add)."""
    distinct = step.denoiser.conditioner.distinct(step.lineages)
    condition = replace(distinct, states=distinct.states.detach().requires_grad_(True))
    latents = step.noise

    def forward() -> Tensor:
        prediction: Tensor = step.backbone(latents, step.timesteps, condition)
        return prediction

    with FlopCounterMode(display=False) as counter:
        output = forward()
        forward_flop = counter.get_total_flops()
        output.sum().backward()  # type: ignore[no-untyped-call]
        backward_flop = counter.get_total_flops() - forward_flop
    seconds = {"forward": math.inf, "backward": math.inf, "step": math.inf}
    for _ in range(num_runs):
        outputs: list[Tensor] = []
        seconds["forward"] = min(seconds["forward"], timed(lambda o=outputs: o.append(forward()), clock))
        seconds["backward"] = min(seconds["backward"], timed(lambda o=outputs: o[0].sum().backward(), clock))
        seconds["step"] = min(seconds["step"], timed(step, clock))
    step.optimiser.clear_gradients()
    return Roofline(
        forward_flop / seconds["forward"],
        backward_flop / seconds["backward"],
        matmul_rate(step, condition, clock),
        (seconds["forward"] + seconds["backward"]) / seconds["step"],
    )


@torch.no_grad()
def matmul_rate(step: OurStep, condition: Conditions, clock: Clock) -> float:
    """FLOP per second of one plain product (M, K) × (K, N) for each linear layer and convolution of the U-Net."""
    shapes: list[tuple[int, int, int]] = []

    def note(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        columns = weight[0].numel()
        shapes.append((output.numel() // weight.shape[0], columns, weight.shape[0]))

    layers = [m for m in step.backbone.unet.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    hooks = [layer.register_forward_hook(note) for layer in layers]
    step.backbone(step.noise, step.timesteps, condition)
    for hook in hooks:
        hook.remove()
    flop = seconds = 0.0
    for shape in sorted(set(shapes)):
        rows, inner, columns = shape
        kind = {"dtype": step.backbone.dtype, "device": step.backbone.device}
        left = torch.ones(rows, inner, **kind)
        right = torch.ones(columns, inner, **kind).T  # as a linear layer holds it
        best = min(timed(lambda a=left, b=right: a @ b, clock) for _ in range(5))
        flop += 2.0 * math.prod(shape) * shapes.count(shape)
        seconds += best * shapes.count(shape)
    return flop / seconds
