"""An adapter that is put on another base of the same shape: its weights stay, and it opens with that base alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from training.rebase import rebase

from taxadiffusion.adapter import load_adapter, read_adapter, save_adapter
from taxadiffusion.errors import CheckpointError
from tests.tiny_adapter import TAXONOMY, make
from tests.tiny_base import write_tiny_base


@pytest.fixture
def bases(tmp_path: Path) -> tuple[Path, Path]:
    """A base, and the same with other weights: pretrained further."""
    for name in ("before", "after"):
        write_tiny_base(tmp_path / name, "epsilon")
    (file,) = (tmp_path / "after" / "unet").glob("*.safetensors")
    save_file({key: tensor + 0.01 for key, tensor in load_file(file).items()}, file)
    return tmp_path / "before", tmp_path / "after"


def test_an_adapter_keeps_its_weights_on_the_new_base_and_opens_with_it_alone(
    bases: tuple[Path, Path], tmp_path: Path
) -> None:
    before, after = bases
    save_adapter(tmp_path / "old", make(before), TAXONOMY, recipe={}, read_me="# Fish\n", image_size_px=32)
    with pytest.raises(CheckpointError, match="belongs to base"):
        load_adapter(tmp_path / "old", base=str(after))
    rebase(tmp_path / "old", after, tmp_path / "new")
    (old, _, old_weights), (new, _, weights) = read_adapter(tmp_path / "old"), read_adapter(tmp_path / "new")
    assert new.base_hash != old.base_hash
    assert new.model_copy(update={"base_hash": old.base_hash}) == old
    assert weights.keys() == old_weights.keys()
    for section, tensors in weights.items():
        torch.testing.assert_close(tensors, old_weights[section], rtol=0, atol=0)
    load_adapter(tmp_path / "new", base=str(after))
    with pytest.raises(CheckpointError, match="belongs to base"):
        load_adapter(tmp_path / "new", base=str(before))
