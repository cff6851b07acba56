"""How much memory a training step needs, found without needing it: the step is run on tensors that are mere shapes."""

# Letters: C, H, W of a latent.
from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.names import Lineage
from taxadiffusion.stages import Stage

Precision = Literal["float32", "bfloat16"]

CARDS_GB = (8, 12, 24)
"""Memory of the cards that `--dry-run` speaks of."""

_HELD_BYTES = 10**9
"""Of a card, what its driver, the libraries' workspaces and scattered blocks take: assumed, not measured."""

_MOMENTS = 2
_FEW, _MORE = 2, 6  # samples of the two steps that are simulated


@dataclass(frozen=True, slots=True)
class StepForm:
    """How a step computes. averaged: a moving average is kept."""

    precision: Precision
    checkpointed: bool
    averaged: bool = False
    merge_lora: bool = True


@dataclass(frozen=True, slots=True)
class StepMemory:
    """Bytes of a step: what lies there all the time, what any step needs, and what each sample adds at the highest."""

    precision: Precision
    checkpointed: bool
    latent_shape: tuple[int, int, int]
    resident: int  # weights, moments, moving average
    fixed: int
    per_sample: int

    def of(self, num_samples: int) -> int:
        return self.resident + self.fixed + num_samples * self.per_sample

    def fits(self, card_gb: float) -> int:
        """The largest micro-batch that a card of so many GB (10⁹ bytes) takes; 0: not even one sample."""
        return max(0, int((1e9 * card_gb - _HELD_BYTES - self.of(0)) // self.per_sample))


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of all storages that are alive, and the most there were: every output of every operation is seen."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = size
        weakref.finalize(storage, self._remove, size)
        self.now += size
        self.peak = max(self.peak, self.now)

    def _remove(self, size: int) -> None:
        self.now -= size


def step_memory(
    denoiser: Denoiser,
    stage: Stage,
    taxa: Sequence[Lineage],
    latent_shape: tuple[int, int, int],
    form: StepForm,
) -> StepMemory:
    """A forward and backward pass of the stage in the given form, simulated; the denoiser is as before after it.

    Attention is taken to be PyTorch's fused kernel.
    """
    precision, checkpointed = form.precision, form.checkpointed
    trained = denoiser.prepare_stage(stage, merge_lora=form.merge_lora)
    num_trained = sum(parameter.numel() for parameter in trained.values())
    resident = num_trained * 4 * (_MOMENTS + form.averaged)
    peaks = []
    with _simulated(denoiser, getattr(torch, precision), checkpointed):
        resident += sum(tensor.nbytes for tensor in (*denoiser.parameters(), *denoiser.buffers()))
        for num_samples in (_FEW, _MORE):
            lineages = [taxa[0].truncated(stage.rank)] * num_samples
            noise = torch.zeros(num_samples, *latent_shape)
            levels = denoiser.backbone.schedule.timesteps_of(torch.zeros(num_samples))
            with _Live() as live:
                denoiser(Batch(noise, lineages, noise, levels)).mean().backward()
            denoiser.zero_grad(set_to_none=True)
            peaks.append(live.peak)
    per_sample = max(1, (peaks[1] - peaks[0]) // (_MORE - _FEW))
    return StepMemory(precision, checkpointed, latent_shape, resident, peaks[0] - _FEW * per_sample, per_sample)


@contextmanager
def _simulated(denoiser: Denoiser, dtype: torch.dtype, checkpointed: bool) -> Iterator[None]:
    """Within: weights are mere shapes, the frozen ones of the U-Net in `dtype`. After: they are themselves."""
    backbone = denoiser.backbone
    own = [(part, name, p) for part in denoiser.modules() for name, p in part._parameters.items() if p is not None]
    buffers = [(part, name, b) for part in denoiser.modules() for name, b in part._buffers.items() if b is not None]
    rounded = set() if denoiser.full_unet else {id(p) for n, p in backbone.unet.named_parameters() if _is_frozen(n)}
    autocast, was_checkpointed = backbone.autocast, backbone.unet.is_gradient_checkpointing
    states = denoiser.conditioner.states
    backbone.schedule.prepare(torch.device("cpu"))
    denoiser.conditioner.loaded()  # what it keeps lies on the device
    with FakeTensorMode(allow_non_fake_inputs=True):
        try:
            for part, name, p in own:
                shape = torch.empty(p.shape, dtype=dtype if id(p) in rounded else p.dtype)
                part._parameters[name] = nn.Parameter(shape, requires_grad=p.requires_grad)
            for part, name, buffer in buffers:
                part._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
            denoiser.conditioner.states = _Blank(states.width, states.num_tokens, states.content_hash)
            backbone.autocast = dtype if denoiser.full_unet and dtype != torch.float32 else None
            _checkpoint(denoiser, checkpointed)
            yield
        finally:
            for part, name, p in own:
                part._parameters[name] = p
            for part, name, buffer in buffers:
                part._buffers[name] = buffer
            backbone.autocast = autocast
            denoiser.conditioner.states = states
            _checkpoint(denoiser, was_checkpointed)
            denoiser.conditioner.loaded()


@dataclass
class _Blank:
    """Token states of the right shape; those of a real source would be kept by it, and are no numbers here."""

    width: int
    num_tokens: int
    content_hash: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        return torch.zeros(len(texts), self.num_tokens, self.width)


def _is_frozen(name: str) -> bool:
    return not any(part in name for part in (".lora_A.", ".lora_B.", ".to_k_extra.", ".to_v_extra."))


def _checkpoint(denoiser: Denoiser, checkpointed: bool) -> None:
    if checkpointed:
        denoiser.backbone.checkpoint_gradients()
    else:
        denoiser.backbone.unet.disable_gradient_checkpointing()
