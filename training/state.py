"""A pretraining's whole state in one safetensors file: weights, their average, the optimiser's, the codec."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from taxadiffusion.errors import CheckpointError, DataError
from training.codec import Codec

STATE = "state.safetensors"
BETAS, DECAY = (0.9, 0.99), 0.01
AVERAGE = 0.0007


class Learner:
    """The networks ("unet", "text" in a `ModuleDict`), the average of their weights, and AdamW."""

    def __init__(self, model: nn.ModuleDict, rate: float) -> None:
        self.model = model
        self.names = [name for name, _ in model.named_parameters()]
        self.parameters = list(model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=BETAS, weight_decay=DECAY, fused=True)
        self.step = self.samples = 0

    def advance(self, rate: float, num_samples: int) -> None:
        """One step along the gradients that are there."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        norm = nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]  # then the step is left out
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step, self.samples = self.step + 1, self.samples + num_samples
        weights = [p.detach() for p in self.parameters]
        torch._foreach_lerp_(self.average, weights, max(AVERAGE, 10 / (self.step + 10)))

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the weights with their average; twice is nothing."""
        for p, average in zip(self.parameters, self.average, strict=True):
            kept = p.clone()
            p.copy_(average)
            average.copy_(kept)

    def save(self, path: Path, codec: Codec, scaling: float) -> None:
        """Written aside and renamed: a reader never sees half of it."""
        tensors: dict[str, Tensor] = {"step": torch.tensor(self.step), "samples": torch.tensor(self.samples)}
        tensors |= {"codec.filters": codec.filters, "codec.bias": codec.bias, "codec.scaling": torch.tensor(scaling)}
        for name, p, average in zip(self.names, self.parameters, self.average, strict=True):
            tensors |= {f"model.{name}": p.detach(), f"ema.{name}": average}
            tensors |= {f"{key}.{name}": self.optimiser.state[p][key] for key in ("exp_avg", "exp_avg_sq")}
        save_file({key: value.cpu().contiguous() for key, value in tensors.items()}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").replace(path)

    @torch.no_grad()
    def load(self, path: Path) -> None:
        """Go on from a state. Raises `CheckpointError` for one of other networks."""
        state = read_state(path)
        for name, p, average in zip(self.names, self.parameters, self.average, strict=True):
            found = state.get(f"model.{name}")
            if found is None or found.shape != p.shape:
                raise CheckpointError(f"{path}: is of other networks ({name}); choose another --out")
            p.copy_(found)
            average.copy_(state[f"ema.{name}"])
            # in the weight's own memory order: the fused optimiser walks through memory, whatever the strides
            moments = {key: torch.empty_like(p).copy_(state[f"{key}.{name}"]) for key in ("exp_avg", "exp_avg_sq")}
            self.optimiser.state[p] = {"step": torch.tensor(float(state["step"]), device=p.device), **moments}
        self.step, self.samples = int(state["step"]), int(state["samples"])


@dataclass(frozen=True)
class Average:
    """What a state is worth to others: the averaged weights of "unet." and "text.", codec, scaling, samples seen."""

    weights: dict[str, Tensor]
    codec: Codec
    scaling: float | None
    samples: int

    def of(self, network: str) -> dict[str, Tensor]:
        start = network + "."
        return {name.removeprefix(start): value for name, value in self.weights.items() if name.startswith(start)}


def read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise DataError(f"{path}: missing; run training.pretrain first")
    return load_file(path)


def read_average(path: Path) -> Average:
    """scaling: None in states that do not keep it."""
    state = read_state(path)
    weights = {name.removeprefix("ema."): value for name, value in state.items() if name.startswith("ema.")}
    codec = Codec(state["codec.filters"], state["codec.bias"])
    scale = float(state["codec.scaling"]) if "codec.scaling" in state else None
    return Average(weights, codec, scale, int(state["samples"]))
