"""AdamW of one stage with its learning rate and moving average: functions of the stage's step, restored to the bit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from taxadiffusion.base.transfer import moved
from taxadiffusion.errors import CheckpointError
from taxadiffusion.trainer.settings import OptimiserSettings
from taxadiffusion.trainer.world import World

_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


def learning_rate(settings: OptimiserSettings, stage_step: int, num_steps: int) -> float:
    """The rate of step `stage_step` (0 is the first) of a stage of `num_steps`."""
    rate = settings.learning_rate
    if stage_step < settings.warmup_steps:
        return rate * (stage_step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return rate
    progress = (stage_step - settings.warmup_steps) / max(1, num_steps - settings.warmup_steps)
    share = (1 + math.cos(math.pi * min(1.0, progress))) / 2
    return rate * (settings.final_fraction + (1 - settings.final_fraction) * share)


class StageOptimiser:
    """Updates the parameters that a stage trains, and nothing else."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], settings: OptimiserSettings, num_steps: int) -> None:
        self.names = sorted(parameters)
        self.parameters = [parameters[name] for name in self.names]
        self.settings = settings
        self.num_steps = num_steps
        self.adam = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.average = [p.detach().clone() for p in self.parameters] if settings.ema_decay is not None else []

    def reduced_norm(self, world: World) -> Tensor:
        """Sum the gradients over the processes, clip them, and return their norm before clipping (a scalar tensor).

        Summing by hand, once a step, instead of wrapping the model: only trained parameters travel, each step is one
        message, and the sum of two processes has the bits of two accumulated micro-batches. A parameter that no process
        used keeps no gradient, so that AdamW leaves it alone.
        """
        if world.num_processes > 1:
            self._reduce(world)
        used = [p for p in self.parameters if p.grad is not None]
        return torch.nn.utils.clip_grad_norm_(used, self.settings.clip_norm)

    def _reduce(self, world: World) -> None:
        like = self.parameters[0]
        used = moved(torch.tensor([float(p.grad is not None) for p in self.parameters]), like.device)
        parts = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        flat = torch.cat([*(part.reshape(-1).float() for part in parts), used])
        world.sum_(flat)
        used_anywhere = (flat[-len(parts) :] > 0).tolist()
        offset = 0
        for parameter, any_process in zip(self.parameters, used_anywhere, strict=True):
            share = flat[offset : offset + parameter.numel()].view_as(parameter)
            parameter.grad = share.to(parameter.dtype) if any_process else None
            offset += parameter.numel()

    def update(self, stage_step: int, not_finite: Tensor | None = None) -> float:
        """One AdamW step with the clipped gradients; returns the learning rate used.

        not_finite: () on the device; where it is 1, parameters, moments, step counts and average stay as they are, and
        the host need not know (PyTorch's fused optimisers have this for gradient scaling).
        """
        rate = learning_rate(self.settings, stage_step, self.num_steps)
        for group in self.adam.param_groups:
            group["lr"] = rate
        if not_finite is not None:
            self.adam.found_inf = not_finite  # type: ignore[attr-defined]
        self.adam.step()
        if self.settings.ema_decay is not None:
            # The ramp keeps the random start out of the average (as in diffusers' EMAModel).
            share = 1 - min(self.settings.ema_decay, (1 + stage_step) / (10 + stage_step))
            values = [p.detach() for p in self.parameters]
            if not_finite is None:
                torch._foreach_lerp_(self.average, values, share)
            else:
                weight = (1.0 - not_finite) * share
                torch._foreach_lerp_(self.average, values, [weight] * len(values))
        return rate

    def clear_gradients(self) -> None:
        self.adam.zero_grad(set_to_none=True)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within: the parameters are their moving average (where one is kept). After: as before, bit for bit."""
        if not self.average:
            yield
            return
        own = [p.detach().clone() for p in self.parameters]
        self._set(self.average)
        try:
            yield
        finally:
            self._set(own)

    def end_on_average(self) -> None:
        """The stage ends on its moving average (where one is kept)."""
        if self.average:
            self._set(self.average)

    def _set(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](self.parameters), list(values))

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Everything that a resumed stage needs: "optimizer" and, where it is kept, "ema".

        What only refused steps have reached is as new, and left out.
        """
        moments = {
            f"{name}/{key}": self.adam.state[parameter][key]
            for name, parameter in zip(self.names, self.parameters, strict=True)
            if parameter in self.adam.state and float(self.adam.state[parameter]["step"])
            for key in _MOMENTS
        }
        files = {"optimizer": moments}
        if self.average:
            files["ema"] = dict(zip(self.names, self.average, strict=True))
        return files

    def restore(self, moments: Mapping[str, Tensor], average: Mapping[str, Tensor] | None) -> None:
        """The inverse of `state`. Raises `CheckpointError` for a name or shape that does not fit."""
        state: dict[int, dict[str, Tensor]] = {}
        rest = dict(moments)
        for index, (name, parameter) in enumerate(zip(self.names, self.parameters, strict=True)):
            entry = {key: rest.pop(f"{name}/{key}") for key in _MOMENTS if f"{name}/{key}" in rest}
            if not entry:
                continue  # no gradient has reached it yet
            if len(entry) != len(_MOMENTS) or entry["exp_avg"].shape != parameter.shape:
                raise CheckpointError(f"optimizer state of {name} is incomplete or of another shape")
            state[index] = entry
        if rest:
            raise CheckpointError(f"optimizer state of unknown parameters, e.g. {sorted(rest)[0]}")
        self.adam.load_state_dict({"state": state, "param_groups": self.adam.state_dict()["param_groups"]})
        if self.average:
            if average is None or set(average) != set(self.names):
                raise CheckpointError("the moving average does not hold exactly the parameters that the stage trains")
            with torch.no_grad():
                torch._foreach_copy_(self.average, [average[name].to(self.average[0].device) for name in self.names])
