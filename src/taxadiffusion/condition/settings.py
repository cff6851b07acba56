"""The settings of every conditioner, told apart by `kind`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

_RETIRED = ("zero_init", "warm_start")
"""Of earlier versions. Cards still hold them, as off: byte for byte, so that a model's hash stays what it was."""


class TaxonomySettings(BaseModel):
    """The rank encoders; the defaults are the paper's.

    norm_first: normalise before attention and feed-forward, and once more at the end: a name's states pass by both.
    Normalising after them, an encoder trained at a high rate may come to give every name the same states (docs/log.md).
    name_gain: how much larger the difference of a name's token states from those of "none" is made; a text encoder that
    never met a name tells two of them apart only faintly.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["taxonomy"] = "taxonomy"
    num_layers: int = Field(default=2, ge=1, le=64)
    num_heads: int = Field(default=8, ge=1, le=256)
    feed_forward: int = Field(default=2048, ge=1, le=65536)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    name_gain: float = Field(default=1.0, gt=0, le=100)
    norm_first: bool = False

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, value: Any) -> Any:
        """They said how an encoder began; what it became is in the weights."""
        return {k: v for k, v in value.items() if k not in _RETIRED} if isinstance(value, dict) else value

    @model_serializer(mode="wrap")
    def _with_retired(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        document: dict[str, object] = written(self)
        return document | dict.fromkeys(_RETIRED, False)


class _WithGain(BaseModel):
    """A gain of 1 is left out where settings are written: byte for byte as earlier versions wrote them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_serializer(mode="wrap")
    def _without_gain(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        document: dict[str, object] = written(self)
        if document.get("name_gain") == 1.0:
            document.pop("name_gain")
        return document


class PromptSettings(_WithGain):
    """The base's own text encoder over "order: Perciformes, family: Pomacentridae, …".

    num_parts: into how many prompts a lineage is cut where one would be too long for the text encoder. name_gain: how
    much larger the difference of a prompt's states from those of the same prompt with "none" for every name is made; of
    one text encoder, what is done for the names of `TaxonomySettings` can be done for prompts.
    """

    kind: Literal["prompt"] = "prompt"
    num_parts: int = Field(default=1, ge=1, le=32)
    name_gain: float = Field(default=1.0, gt=0, le=100)


class ClassEmbeddingSettings(BaseModel):
    """A vector per taxon and rank; guidance from an ancestor is then superclass guidance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["class_embedding"] = "class_embedding"


class TaxonAdapterSettings(_WithGain):
    """Number of extra tokens, which have a cross-attention of their own (`decoupled`).

    embedding_width: of an embedding per taxon that is kept in a table; None = the base's text states are the embedding,
    with `num_parts` and `name_gain` as for prompts.
    """

    kind: Literal["taxon_adapter"] = "taxon_adapter"
    num_tokens: int = Field(default=4, ge=1, le=256)
    embedding_width: int | None = Field(default=None, ge=1, le=16384)
    num_parts: int = Field(default=1, ge=1, le=32)
    name_gain: float = Field(default=1.0, gt=0, le=100)


ConditionerSettings = Annotated[
    TaxonomySettings | PromptSettings | ClassEmbeddingSettings | TaxonAdapterSettings, Field(discriminator="kind")
]
