"""A trained adapter as a directory: written whole, and read strictly, from strangers too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError
from torch import Tensor

from taxadiffusion.adapter.card import LOCAL, AdapterCard, CardNotes, base_name, is_known_base
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import lora_metadata
from taxadiffusion.base.transfer import good_precision, use_fast_arithmetic
from taxadiffusion.base.weights import BASE_FILES, SHIPPED_BASE, check_tensors, model_folder
from taxadiffusion.condition.methods import build_conditioner
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.files import write_folder
from taxadiffusion.names import Lineage
from taxadiffusion.taxonomy import NAMES, Taxonomy

CARD, TAXONOMY, READ_ME = "adapter.json", "taxonomy.json", "README.md"
SECTION_FILES = {
    "conditioner": "encoders.safetensors",
    "lora": "pytorch_lora_weights.safetensors",  # the name diffusers' `load_lora_weights` looks for
    "taxon_attention": "taxon_attention.safetensors",
    "unet": "unet.safetensors",
}
PICKLED = (".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".npy", ".npz", ".h5", ".msgpack")
"""Endings of files that may hold code; an adapter has none, and none is opened."""

_FILES = (CARD, TAXONOMY, READ_ME, NAMES, *SECTION_FILES.values())
_NO_NOTES = CardNotes()


@dataclass(frozen=True, slots=True)
class Adapter:
    """A model that is ready to make pictures."""

    denoiser: Denoiser
    taxonomy: Taxonomy
    card: AdapterCard
    path: Path


def save_adapter(
    path: Path,
    denoiser: Denoiser,
    taxonomy: Taxonomy,
    *,
    recipe: Mapping[str, JsonValue],
    read_me: str,
    image_size_px: int | None = None,
    notes: CardNotes = _NO_NOTES,
) -> AdapterCard:
    """Write the adapter directory: aside, flushed, then renamed over an older one.

    image_size_px: of the training images; None = the base's own. Raises `CheckpointError` when it cannot be written.
    """
    backbone = denoiser.backbone
    files = {}
    for section, tensors in denoiser.state().items():
        settings = backbone.lora_settings
        metadata = lora_metadata(settings) if section == "lora" and settings else {"format": "pt"}
        contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        files[SECTION_FILES[section]] = safetensors.torch.save(contiguous, metadata)
    card = AdapterCard(
        base=base_name(backbone.name),
        base_hash=backbone.content_hash,
        taxonomy_hash=taxonomy.content_hash,
        ranks=denoiser.conditioner.ranks,
        conditioner=denoiser.conditioner.settings,
        lora=backbone.lora_settings,
        full_unet=denoiser.full_unet,
        num_text_tokens=denoiser.conditioner.states.num_tokens,
        image_size_px=image_size_px or backbone.image_size_px,
        files={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        recipe=dict(recipe),
        taxon_ids=dict(notes.taxon_ids),
        learned=notes.learned,
    )
    files[CARD] = (card.model_dump_json(indent=1) + "\n").encode()
    files[TAXONOMY] = json.dumps(taxonomy.to_json()).encode()
    files[READ_ME] = read_me.encode()
    try:
        write_folder(path, files)
    except OSError as error:
        num_bytes = sum(map(len, files.values()))
        raise CheckpointError(f"{path}: the adapter ({num_bytes / 1e6:.1f} MB) cannot be written: {error}") from error
    return card


def open_model(
    model: str,
    *,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> Adapter:
    """The adapter that a user names: a directory, the name of a shipped one ("reef-fish"), or a hub id.

    The directory may be the adapter, a run that has written one, or an adapter beside the base it belongs to (as the
    pipeline saves it). dtype: of the U-Net's arithmetic; None: what the device does well (`good_precision`), float32 on
    a CPU. Raises `CheckpointError`.
    """
    path, beside = find_adapter(model)
    return load_adapter(path, base=base or beside, dtype=dtype, device=device)


def find_adapter(model: str) -> tuple[Path, str | None]:
    """Where the adapter that `open_model` would open lies, and the base beside it, if there is one.

    Raises `CheckpointError`.
    """
    path = model_folder(model, [*_FILES, *(f"adapter/{name}" for name in _FILES), *BASE_FILES])
    if (path / CARD).is_file():
        return path, None
    if not (path / "adapter" / CARD).is_file():
        raise CheckpointError(f"{path} holds no {CARD}: it is neither an adapter nor a run that has written one")
    return path / "adapter", str(path) if (path / "unet").is_dir() else None


def load_adapter(
    path: Path,
    *,
    base: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> Adapter:
    """Read an adapter directory, trusting nothing in it: safetensors and JSON only, every name, shape, rank and hash
    must match, or all is refused with a `CheckpointError` (a base file is never written).

    base: where the base is, when the card's own name for it is not where it lies; its weights must still be those.
    dtype: as in `open_model`.
    """
    device = torch.device(device)
    use_fast_arithmetic(device)
    card, taxonomy, state = read_adapter(path)
    if base is None:
        _require_named(card, path)
    backbone = Backbone.load(
        base or card.base,
        dtype=dtype or good_precision(device),
        device=device,
        num_text_tokens=card.num_text_tokens,
        trained=card.full_unet,
    )
    if backbone.content_hash != card.base_hash:
        raise CheckpointError(
            f"{path}: belongs to base {card.base!r} with content {card.base_hash[:12]}…, but {backbone.name!r} has "
            f"{backbone.content_hash[:12]}…: use the base it was trained on"
        )
    if card.lora is not None:
        backbone.add_lora(card.lora)
    if card.conditioner.extra_tokens:
        backbone.add_decoupled_attention(card.conditioner.extra_tokens)
    states = backbone.text
    with torch.device("meta"):  # names and shapes before any memory is asked for
        planned = build_conditioner(card.conditioner, card.ranks, states, _taxa(taxonomy))
    check_tensors(dict(planned.named_parameters()), state.get("conditioner", {}), f"{path} (conditioner)")
    conditioner = build_conditioner(card.conditioner, card.ranks, states, _taxa(taxonomy)).to(device)
    denoiser = Denoiser(backbone, conditioner, full_unet=card.full_unet).eval().requires_grad_(False)
    denoiser.load_state(state, str(path))
    denoiser.conditioner.train_only(())
    return Adapter(denoiser, taxonomy, card, path)


def _require_named(card: AdapterCard, path: Path) -> None:
    """The card's own name for its base must lead to one."""
    if card.base == LOCAL:
        raise CheckpointError(f"{path}: was trained on a base in a local directory: say where it is (base)")
    if card.base != SHIPPED_BASE and "/" not in card.base:
        raise CheckpointError(
            f"{path}: was trained on the base {card.base!r} of an earlier version, which ships no more (now: "
            f"{SHIPPED_BASE!r}): say where a copy of it is (base), or train it anew"
        )


def _taxa(taxonomy: Taxonomy) -> Iterator[Lineage]:
    """One after another: most conditioners need none of what may be a million."""
    return (taxonomy.lineage(number) for number in range(len(taxonomy)))


def read_adapter(path: Path) -> tuple[AdapterCard, Taxonomy, dict[str, dict[str, Tensor]]]:
    """The verified contents of an adapter directory, before any base is read. Raises `CheckpointError`."""
    card = read_card(path)
    try:
        taxonomy = Taxonomy.from_json(json.loads(_bytes(path / TAXONOMY)))
    except (ValueError, RecursionError, OverflowError, DataError) as error:
        raise CheckpointError(f"{path / TAXONOMY}: {error}") from error
    if taxonomy.content_hash != card.taxonomy_hash:
        raise CheckpointError(f"{path / TAXONOMY}: is not the taxonomy that the adapter was trained on")
    if unknown_ids := [number for number in card.taxon_ids if not 0 <= number < len(taxonomy)]:
        raise CheckpointError(f"{path / CARD}: taxon_ids names taxon {unknown_ids[0]}; its taxonomy has none such")
    if not set(card.ranks) <= set(taxonomy.ranks):
        raise CheckpointError(f"{path / CARD}: ranks {list(card.ranks)}, but the taxonomy has {list(taxonomy.ranks)}")
    sections = {name: section for section, name in SECTION_FILES.items()}
    if unknown := sorted(set(card.files) - set(sections)):
        raise CheckpointError(f"{path / CARD}: lists {unknown[0]!r}, which is no file of an adapter")
    return card, taxonomy, {sections[name]: _tensors(path / name, digest) for name, digest in card.files.items()}


def read_card(path: Path) -> AdapterCard:
    """The card alone, of a directory without foreign files. Raises `CheckpointError`."""
    _refuse_foreign_files(path)
    try:
        card = AdapterCard.model_validate_json(_bytes(path / CARD))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"])) or "the file"
        raise CheckpointError(f"{path / CARD}: {where}: {fault['msg']}") from error
    if not is_known_base(card.base):
        raise CheckpointError(f"{path / CARD}: base {card.base!r} is neither a shipped one's name, local nor a hub id")
    return card


def _refuse_foreign_files(path: Path) -> None:
    """No file that may hold code, and no link that leads outside (but for the hub's cache, which is made of links)."""
    if not path.is_dir():
        raise CheckpointError(f"{path} is not an adapter: no such directory")
    allowed = {path.resolve(), path.resolve().parent.parent / "blobs"}
    for entry in sorted(path.iterdir()):
        if entry.suffix.lower() in PICKLED:
            raise CheckpointError(f"{entry}: may hold code and is refused; an adapter is safetensors and JSON alone")
        if entry.is_symlink() and entry.resolve().parent not in allowed:
            raise CheckpointError(f"{entry}: is a link that leads out of the adapter")


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def _tensors(path: Path, digest: str) -> dict[str, Tensor]:
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != digest:
        raise CheckpointError(f"{path}: its content is not what {CARD} says; it is damaged or was exchanged")
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path}: is not a safetensors file: {error}") from error
    return tensors
