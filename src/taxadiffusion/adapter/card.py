"""`adapter.json`: what an adapter's weights are of, what they belong to, and what they learned from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.condition.methods import AnyConditionerSettings
from taxadiffusion.errors import DataError
from taxadiffusion.names import Rank, ordered_ranks

LOCAL = "local"
"""What a card calls a base that has no public name."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SHIPPED = re.compile(r"[a-z0-9-]+")  # of this version or another, and "local"
_SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _known_ranks(ranks: tuple[Rank, ...]) -> tuple[Rank, ...]:
    try:
        in_order = ordered_ranks(ranks)
    except DataError as error:
        raise ValueError(str(error)) from error
    if in_order != ranks or not ranks:
        raise ValueError("ranks must run coarse to fine, without repeats")
    return ranks


class LearnedSet(BaseModel):
    """Photographs of one prepared set that a training saw.

    name: of its folder. content_hash: the set's own, or of the part of it that was trained on. replayed: they were
    given to keep what an earlier adapter knew.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    content_hash: _SHA256
    num_photographs: int = Field(ge=0)
    num_taxa: int = Field(ge=0)
    replayed: bool = False


class Learned(BaseModel):
    """One training in an adapter's past. from_adapter, from_hash: which adapter it went on from; None: it began anew.

    sets: None where an earlier version did not record them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    from_adapter: str | None = None
    from_hash: _SHA256 | None = None
    sets: tuple[LearnedSet, ...] | None = None


class AdapterCard(BaseModel):
    """`adapter.json`: what the weights are of and what they belong to.

    base: the shipped one's name, a hub id, or "local" (then the reader must name the base). base_hash: of the base's
    weights. files: sha256 of every weight file. recipe: how it was trained; only a run that goes on from here reads it.
    taxon_ids: by number in the taxonomy, the ids (Darwin Core's taxonID) that the data's source or catalogue gives its
    taxa. learned: every training of these weights, the first one first; none in cards of earlier versions.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["taxadiffusion-adapter"] = "taxadiffusion-adapter"
    schema_version: Literal[1] = 1
    base: str
    base_hash: _SHA256
    taxonomy_hash: _SHA256
    ranks: Annotated[tuple[Rank, ...], AfterValidator(_known_ranks)]
    conditioner: AnyConditionerSettings
    lora: LoRASettings | None
    full_unet: bool
    num_text_tokens: int = Field(ge=3, le=4096)
    image_size_px: int = Field(ge=1, le=4096)
    files: dict[str, _SHA256]
    recipe: dict[str, JsonValue] = Field(default_factory=dict)
    taxon_ids: dict[int, str] = Field(default_factory=dict)
    learned: tuple[Learned, ...] = ()

    @property
    def content_hash(self) -> str:
        """sha256 of the card, which holds the hashes of all weights: the adapter's identity."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    @model_serializer(mode="wrap")
    def _as_ever(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        """A card without ids and past is byte for byte that of earlier versions, and so are the hashes taken of it.

        A LoRA's alpha, a whole number, is written as they wrote it: 4.0.
        """
        document: dict[str, Any] = written(self)
        if self.lora is not None:
            document["lora"]["alpha"] = float(self.lora.alpha)
        for name in ("taxon_ids", "learned"):
            if not document[name]:
                document.pop(name)
        return document


@dataclass(frozen=True, slots=True)
class CardNotes:
    """What a card says beside the model and its recipe: `AdapterCard`'s taxon_ids and learned."""

    taxon_ids: Mapping[int, str] = field(default_factory=dict)
    learned: tuple[Learned, ...] = ()


def base_name(base: str) -> str:
    """What a card says of a base: its public name, or "local" for a directory of this machine."""
    is_public = base == SHIPPED_BASE or (_HUB_ID.fullmatch(base) and not Path(base).is_dir())
    return base if is_public else LOCAL


def is_known_base(base: str) -> bool:
    """Whether a card may call a base so."""
    return _SHIPPED.fullmatch(base) is not None or _HUB_ID.fullmatch(base) is not None
