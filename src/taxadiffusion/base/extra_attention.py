"""Decoupled cross-attention: the last tokens of a condition get keys and values of their own (IP-Adapter)."""

# Letters: B batch, Q queries, T text tokens, K extra tokens, D width.
from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from taxadiffusion.base.attention import heads


class DecoupledAttention(nn.Module):
    """Attention processor: `Attn(q, K_text, V_text) + Attn(q, K_extra, V_extra)` (Ye et al. 2023, eq. 5).

    The extra keys start as a copy of the text's, the extra values at zero: nothing changes before training.
    """

    def __init__(self, attention: Any, num_extra: int) -> None:
        super().__init__()
        self.num_extra = num_extra
        width, inner = attention.to_k.in_features, attention.to_k.out_features
        self.to_k_extra = nn.Linear(width, inner, bias=False)
        self.to_v_extra = nn.Linear(width, inner, bias=False)
        self.to_k_extra.weight.data.copy_(attention.to_k.weight)
        nn.init.zeros_(self.to_v_extra.weight)

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """(B, Q, inner) → (B, Q, inner), for the transformer blocks of `UNet2DConditionModel`."""
        assert attention_mask is None
        assert temb is None
        text, extra = encoder_hidden_states[:, : -self.num_extra], encoder_hidden_states[:, -self.num_extra :]
        query = heads(attn.to_q(hidden_states), attn.heads)
        attended = F.scaled_dot_product_attention(
            query, heads(attn.to_k(text), attn.heads), heads(attn.to_v(text), attn.heads)
        )
        weight_type = self.to_k_extra.weight.dtype
        keys = heads(self.to_k_extra(extra.to(weight_type)).to(query.dtype), attn.heads)
        values = heads(self.to_v_extra(extra.to(weight_type)).to(query.dtype), attn.heads)
        attended = attended + F.scaled_dot_product_attention(query, keys, values)  # (B, heads, Q, inner/heads)
        joined = attended.transpose(1, 2).flatten(2)
        return attn.to_out[1](attn.to_out[0](joined))  # type: ignore[no-any-return]


def add_decoupled_attention(unet: Any, num_extra: int) -> None:
    """Give every cross-attention of the U-Net a `DecoupledAttention` in float32."""
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.set_processor(DecoupledAttention(module, num_extra).to(module.to_k.weight.device).float())


def decoupled_parameters(unet: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters of decoupled attention by their full names; empty where there is none."""
    return {name: p for name, p in unet.named_parameters() if ".to_k_extra." in name or ".to_v_extra." in name}
