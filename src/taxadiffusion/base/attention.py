"""Attention of a U-Net: keys and values once per distinct condition; written out where that is the faster way."""

# Letters: B batch, U distinct conditions, Q queries, T tokens, D width.
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from taxadiffusion.base.transfer import moved, multiplies_in_bfloat16


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """The conditions of a batch: the distinct ones, and which of them each sample has.

    kept: where keys and values may stay between calls, for as long as neither states nor weights change (sampling).
    """

    states: Tensor  # (U, T, D)
    rows: Tensor  # (B,)
    kept: dict[int, tuple[Tensor, Tensor]] | None = None

    def expanded(self) -> Tensor:
        """(B, T, D), one for each sample."""
        return self.states.index_select(0, self.rows)

    def at(self, device: torch.device) -> Conditions:
        """The same there; these themselves where they are there already."""
        if self.states.device == self.rows.device == device:
            return self
        return Conditions(moved(self.states, device), moved(self.rows, device), self.kept)


class Current:
    """The conditions of the forward pass that is going on; all attention of one U-Net shares it."""

    def __init__(self) -> None:
        self.conditions: Conditions | None = None
        self.writes_out = False
        """Attention with gradients is written as two products, see `_write_out_attention`."""

    @contextmanager
    def set_to(self, conditions: Conditions | None) -> Iterator[None]:
        before = self.conditions
        self.conditions = conditions
        try:
            yield
        finally:
            self.conditions = before

    def recomputed(self, module: Any, *inputs: Any) -> Any:
        """`module(*inputs)`, whose activations are not kept: the backward pass computes them once more, under the
        conditions of this forward pass (gradient checkpointing; Chen et al. 2016, arXiv 1604.06174)."""
        conditions = self.conditions

        def run(*given: Any) -> Any:
            with self.set_to(conditions):
                return module(*given)

        return checkpoint(run, *inputs, use_reentrant=False)

    def keys_and_values(self, attn: Any, context: Tensor) -> tuple[Tensor, Tensor]:
        """Each (B, T, inner), of a context (U, T, D) of the current conditions, or (B, T, D) where there are none."""
        conditions = self.conditions
        if conditions is None:
            return attn.to_k(context), attn.to_v(context)
        kept = conditions.kept
        found = kept.get(id(attn)) if kept is not None else None
        if found is None:
            found = attn.to_k(context), attn.to_v(context)  # each (U, T, inner)
            if kept is not None:
                kept[id(attn)] = found
        key, value = found
        return key.index_select(0, conditions.rows), value.index_select(0, conditions.rows)

    def attended(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Scaled dot-product attention, (B, heads, Q, d)."""
        if self.writes_out and torch.is_grad_enabled():
            weights: Tensor = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (B, heads, Q, T)
            mixed: Tensor = weights.softmax(dim=-1).to(value.dtype) @ value
            return mixed
        return F.scaled_dot_product_attention(query, key, value)


class SharedAttention:
    """Attention processor: what `AttnProcessor2_0` computes in a transformer block; to the condition, keys and values
    are shared, and without one it attends to itself."""

    def __init__(self, current: Current) -> None:
        self._current = current

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, inner) → (B, Q, inner)."""
        assert attention_mask is None
        assert temb is None
        query = heads(attn.to_q(hidden_states), attn.heads)
        if encoder_hidden_states is None:
            key, value = attn.to_k(hidden_states), attn.to_v(hidden_states)
        else:
            key, value = self._current.keys_and_values(attn, encoder_hidden_states)
        attended = self._current.attended(query, heads(key, attn.heads), heads(value, attn.heads))
        return attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]


def heads(states: Tensor, number: int) -> Tensor:
    """(B, n, inner) → (B, heads, n, inner / heads)."""
    return states.reshape(*states.shape[:2], number, -1).transpose(1, 2)


def share_attention(unet: nn.Module, current: Current) -> bool:
    """Let every cross-attention of the U-Net read `current`; False, and nothing is changed, where one does more than
    a transformer block's plain attention."""
    found = [module for name, module in unet.named_modules() if name.endswith("attn2")]
    if not all(_is_plain(module) for module in found):
        return False
    for module in found:
        module.set_processor(SharedAttention(current))
    weight = next(unet.parameters())
    if weight.dtype == torch.bfloat16 and weight.device.type == "cpu" and multiplies_in_bfloat16(weight.device):
        _write_out_attention(unet, current)
    return bool(found)


def _write_out_attention(unet: nn.Module, current: Current) -> None:
    """Write attention as two products while gradients are kept, wherever it is plain.

    For a CPU that multiplies in bfloat16: the backward pass of torch's own attention is slow there
    (benchmarks/levers.py). It holds the weights (B, heads, Q, Q), which a GPU at 512 px could not.
    """
    current.writes_out = True
    for name, module in unet.named_modules():
        if name.endswith("attn1") and _is_plain(module):
            module.set_processor(SharedAttention(current))


def _is_plain(attn: Any) -> bool:
    return (
        isinstance(attn.processor, AttnProcessor2_0)
        and attn.group_norm is None
        and attn.spatial_norm is None
        and not attn.norm_cross
        and attn.norm_q is None
        and attn.norm_k is None
        and not attn.residual_connection
        and attn.rescale_output_factor == 1.0
        and attn.added_kv_proj_dim is None
    )
