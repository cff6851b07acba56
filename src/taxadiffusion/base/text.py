"""Frozen text encoders: names and prompts → token states."""

# Letters: N texts, T tokens, D width.
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from taxadiffusion.base.components import text_settings
from taxadiffusion.base.weights import component_hash, component_variant
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.names import Rank

_BATCH = 64


class TokenStates(Protocol):
    """Whatever gives token states of texts: a text encoder, or its states read from disk."""

    width: int
    num_tokens: int
    content_hash: str

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, T, D), one row a text."""
        ...


def rank_text(rank: Rank, name: str | None) -> str:
    """`s_r`, e.g. "order: Perciformes"; a hole is "order: none" (M1, F6)."""
    return f"{rank}: {name or 'none'}"


def load_tokenizer(base: Path) -> CLIPTokenizer:
    """A base's tokenizer. Raises `CheckpointError`."""
    try:
        return CLIPTokenizer.from_pretrained(base / "tokenizer", local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"the tokenizer of base {base} cannot be loaded: {error}") from error


def longest_text(settings: CLIPTextConfig, tokenizer: CLIPTokenizer) -> int:
    """T: as many tokens as the tokenizer pads to, at most what the text encoder takes."""
    return int(min(settings.max_position_embeddings, tokenizer.model_max_length))


@contextmanager
def _without_bars() -> Iterator[None]:
    """Without transformers' own bar: a file on the disk is read in a moment, and ours stand on the same screen."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


class TextEncoder(nn.Module):
    """A base's text encoder and tokenizer, frozen, in float32 (its states are computed once and kept).

    `num_tokens` below the base's own length computes the first tokens only: the encoder is causal, so they are what
    they would be within the whole length.
    """

    def __init__(self, model: CLIPTextModel, tokenizer: CLIPTokenizer, content_hash: str, num_tokens: int) -> None:
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.content_hash = content_hash
        self.num_tokens = num_tokens
        self.width: int = model.config.hidden_size

    @classmethod
    def load(
        cls,
        base: Path,
        *,
        device: str | torch.device = "cpu",
        num_tokens: int | None = None,
    ) -> TextEncoder:
        """From a base's `text_encoder` and `tokenizer` folders (safetensors only). Raises `CheckpointError`."""
        settings = text_settings(base)
        tokenizer = load_tokenizer(base)
        longest = longest_text(settings, tokenizer)
        if num_tokens is not None and not 3 <= num_tokens <= longest:
            raise SettingsError(f"num_tokens must lie between 3 and the base's {longest}, got {num_tokens}")
        try:
            with _without_bars():
                model, loading = CLIPTextModel.from_pretrained(
                    base / "text_encoder",
                    use_safetensors=True,
                    local_files_only=True,
                    dtype=torch.float32,
                    variant=component_variant(base, "text_encoder"),
                    output_loading_info=True,
                )
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"the text encoder of base {base} cannot be loaded: {error}") from error
        if loading["missing_keys"] or loading["mismatched_keys"]:
            wrong = sorted(map(str, [*loading["missing_keys"], *loading["mismatched_keys"]]))
            raise CheckpointError(f"{base}/text_encoder lacks weights or has wrong shapes: {', '.join(wrong[:5])}")
        return cls(model.to(device), tokenizer, component_hash(base, "text_encoder"), num_tokens or longest)

    def length(self, text: str) -> int:
        """Tokens of a text, start and end included, before padding."""
        return len(self.tokenizer(text, truncation=False, verbose=False)["input_ids"])

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Token ids (N, T), padded as the base pads. Raises `SettingsError` for a text that does not fit."""
        for text in texts:
            length = self.length(text)
            if length > self.num_tokens:
                raise SettingsError(f"{text!r} has {length} tokens, {self.num_tokens} are allowed: raise num_tokens")
        encoded = self.tokenizer(list(texts), padding="max_length", max_length=self.num_tokens, return_tensors="pt")
        ids: Tensor = encoded["input_ids"]
        return ids.to(self.model.device)

    @torch.no_grad()
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Last hidden states, (N, T, D): `T(s)` of M1."""
        if not texts:
            return torch.zeros(0, self.num_tokens, self.width, device=self.model.device)
        ids = self.tokens(texts)
        states = [self.model(input_ids=block)[0] for block in torch.split(ids, _BATCH)]
        return torch.cat(states)  # (N, T, D)
