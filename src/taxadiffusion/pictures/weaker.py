"""A weaker model to guide away from (autoguidance): an earlier commit of the model's own run, or another adapter."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from taxadiffusion.adapter import Adapter, load_adapter, open_model
from taxadiffusion.checkpoint import MANIFEST, Committed, Manifest, verify
from taxadiffusion.errors import CheckpointError
from taxadiffusion.names import Rank
from taxadiffusion.sampler import Weaker

_OPTIMISER = "optimizer.safetensors"
"""The file that a commit within a stage holds, and one between two stages does not."""


@dataclass(frozen=True, slots=True, eq=False)
class WeakerModel:
    """What the sampler takes, and a hash of what decides its predictions."""

    weaker: Weaker
    sha256: str


def open_weaker(path: Path, adapter: Adapter, *, base: str | None = None) -> WeakerModel:
    """The weaker model at `path`: a commit of a run (`RUN/step-N`) that `adapter` came of, or another adapter or run.

    A commit's conditions are cut at the rank of the last stage that it has seen, for its finer encoders have learnt
    nothing yet. Raises `CheckpointError` for one of another base, taxonomy or form, or that does not verify.
    """
    device = adapter.denoiser.backbone.device
    if (path / MANIFEST).is_file():
        return _of_commit(path, adapter, base)
    other = open_model(str(path), base=base, device=device)
    if other.card.base_hash != adapter.card.base_hash:
        raise CheckpointError(f"{path}: belongs to another base than {adapter.path}; guidance is within one base")
    if missing := [rank for rank in adapter.card.ranks if rank not in other.card.ranks]:
        raise CheckpointError(f"{path}: does not know the rank {missing[0]!r} of {adapter.path}")
    return WeakerModel(Weaker(other.denoiser), _sha256(other.card.model_dump_json()))


def _of_commit(path: Path, adapter: Adapter, base: str | None) -> WeakerModel:
    committed = Committed(path, verify(path))
    manifest = committed.manifest
    for name, wanted in (("base", adapter.card.base_hash), ("taxonomy", adapter.card.taxonomy_hash)):
        if manifest.hashes.get(name) != wanted:
            raise CheckpointError(
                f"{path}: belongs to another {name} than {adapter.path}: name a commit of its own run"
            )
    denoiser = load_adapter(adapter.path, base=base, device=adapter.denoiser.backbone.device).denoiser
    own = {name: parameter for group in denoiser.groups().values() for name, parameter in group.items()}
    tensors = committed.tensors("model")
    wrong = sorted(name for name in tensors if name not in own or own[name].shape != tensors[name].shape)
    if wrong or not tensors:
        raise CheckpointError(f"{path}: its {wrong[0] if wrong else 'parameters'} are not those of {adapter.path}")
    denoiser.backbone.unmerge_lora()
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)
    denoiser.conditioner.loaded()
    rank = _finest_learnt(manifest, adapter.card.ranks)
    return WeakerModel(Weaker(denoiser, rank), _sha256(repr(sorted(manifest.files.items()))))


def _finest_learnt(manifest: Manifest, ranks: Sequence[Rank]) -> Rank | None:
    """The rank of the stage that a commit lies in, or that it ends; None: of all."""
    if manifest.stage_name not in ranks:
        return None
    named = ranks.index(manifest.stage_name)  # the stage to go on with, in which a commit between two did nothing yet
    return ranks[named if _OPTIMISER in manifest.files else named - 1]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
