"""Laws of the text encoder: the base's own states, and trimming that changes none of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from transformers.utils import logging

from taxadiffusion.base.text import TextEncoder, rank_text
from taxadiffusion.base.weights import component_hash
from taxadiffusion.errors import CheckpointError, SettingsError
from tests.tiny_base import write_tiny_base

TEXTS = ["order: Perciformes", "", "species: clarkii"]


def test_rank_texts_are_the_methods() -> None:
    """METHOD: `s_r`; fault 6: a missing name is never "nan"."""
    assert rank_text("order", "Perciformes") == "order: Perciformes"
    assert rank_text("family", None) == "family: none"


def test_states_are_those_the_bases_own_pipeline_computes(base: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    positive, negative = pipeline.encode_prompt(TEXTS, "cpu", 1, True, negative_prompt=[""] * 3)
    encoder = TextEncoder.load(base)
    torch.testing.assert_close(encoder(TEXTS), positive)
    torch.testing.assert_close(encoder([""]), negative[:1])


def test_a_text_alone_is_the_text_in_a_batch(base: Path) -> None:
    encoder = TextEncoder.load(base)
    together = encoder(TEXTS)
    assert together.shape == (3, encoder.num_tokens, encoder.width) == (3, 77, 16)
    for row, text in enumerate(TEXTS):
        torch.testing.assert_close(encoder([text])[0], together[row])
    assert encoder([]).shape == (0, 77, 16)


def test_trimmed_states_are_the_first_of_the_whole(base: Path) -> None:
    """The encoder is causal: what comes later cannot reach back."""
    whole, trimmed = TextEncoder.load(base), TextEncoder.load(base, num_tokens=24)
    torch.testing.assert_close(trimmed(TEXTS), whole(TEXTS)[:, :24])


def test_a_text_is_never_cut_silently(base: Path) -> None:
    with pytest.raises(SettingsError, match=r"'order: Perciformes' has 19 tokens, 18 are allowed"):
        TextEncoder.load(base, num_tokens=18)(TEXTS)
    with pytest.raises(SettingsError, match="has 102 tokens, 77 are allowed"):
        TextEncoder.load(base)(["x" * 100])
    with pytest.raises(SettingsError, match="between 3 and the base's 77, got 78"):
        TextEncoder.load(base, num_tokens=78)


def test_loading_draws_no_bar_of_its_own_and_leaves_those_of_others(
    base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = logging.is_progress_bar_enabled()
    TextEncoder.load(base)
    assert "Loading weights" not in capsys.readouterr().err
    assert logging.is_progress_bar_enabled() == before


def test_it_is_frozen(base: Path) -> None:
    encoder = TextEncoder.load(base)
    assert not encoder(TEXTS).requires_grad
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert not encoder.model.training


def test_the_hash_follows_weights_and_tokenizer(base: Path, tmp_path: Path) -> None:
    same = write_tiny_base(tmp_path / "same")
    other = write_tiny_base(tmp_path / "other", seed=1)
    assert TextEncoder.load(same).content_hash == TextEncoder.load(base).content_hash
    assert TextEncoder.load(other).content_hash != TextEncoder.load(base).content_hash
    merges = same / "tokenizer" / "merges.txt"
    merges.write_text(merges.read_text() + "o r\n")
    assert TextEncoder.load(base).content_hash != component_hash(same, "text_encoder")


def test_another_kind_of_encoder_and_a_broken_one_are_refused(tmp_path: Path) -> None:
    base = write_tiny_base(tmp_path)
    weights = base / "text_encoder" / "model.safetensors"
    good = weights.read_bytes()
    weights.write_bytes(good[:1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        TextEncoder.load(base)
    weights.write_bytes(good)
    config = base / "text_encoder" / "config.json"
    value = json.loads(config.read_text())
    config.write_text(json.dumps(value | {"num_hidden_layers": 3}))
    with pytest.raises(CheckpointError, match="lacks weights"):
        TextEncoder.load(base)
    config.write_text(json.dumps(value | {"model_type": "t5"}))
    with pytest.raises(CheckpointError, match="'t5'"):
        TextEncoder.load(base)
