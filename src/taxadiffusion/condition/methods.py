"""The methods: one declaration each, which the plan, loading, adapters, settings and tables read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from taxadiffusion.base.text import TokenStates
from taxadiffusion.condition.class_embedding import ClassEmbeddingConditioner
from taxadiffusion.condition.conditioner import Conditioner, ConditionerSettings
from taxadiffusion.condition.prompt import PromptConditioner
from taxadiffusion.condition.taxon_adapter import TaxonAdapterConditioner, TaxonAdapterSection
from taxadiffusion.condition.taxonomy import RankEncoderSection, TaxonomyConditioner
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.stages import ENCODERS


@dataclass(frozen=True, slots=True)
class Method:
    """A way to condition and train.

    name: the strategy's name in settings. conditioner: lineage → (B, T, D). trains: parameter groups (`Stage.trains`;
    `ENCODERS` stands for every rank's); the base gets what they need. row: its name in tables, if not its own.
    stage_per_rank: a stage for each rank, coarse to fine, else one for everything. random_depth: each step draws its
    depth.
    """

    name: str
    conditioner: type[Conditioner]
    trains: tuple[str, ...]
    row: str = ""
    stage_per_rank: bool = False
    random_depth: bool = False

    @property
    def needs_lora(self) -> bool:
        """LoRA layers are put on the U-Net."""
        return "lora" in self.trains

    @property
    def needs_extra_attention(self) -> bool:
        """The condition's last tokens get a cross-attention of their own (`base.extra_attention`)."""
        return "taxon_attention" in self.trains

    @property
    def trains_unet(self) -> bool:
        """The U-Net's own weights are trained and saved."""
        return "unet" in self.trains


METHODS: tuple[Method, ...] = (
    Method("progressive", TaxonomyConditioner, ("lora", ENCODERS), row="taxadiffusion", stage_per_rank=True),
    Method("all", TaxonomyConditioner, ("lora", ENCODERS), row="taxadiffusion_all"),
    Method("random", TaxonomyConditioner, ("lora", ENCODERS), row="taxadiffusion_random", random_depth=True),
    Method("zero_shot", PromptConditioner, ()),
    Method("lora", PromptConditioner, ("lora",)),
    Method("full", PromptConditioner, ("unet",)),
    Method("class_embedding", ClassEmbeddingConditioner, ("lora", "classes"), random_depth=True),
    Method("taxon_adapter", TaxonAdapterConditioner, ("taxon_tokens", "taxon_attention")),
)
"""The method's three strategies (M2), then the baselines (one stage each; zero_shot trains nothing)."""


def method_named(name: str) -> Method:
    """Raises `SettingsError` for a name that no method has."""
    for method in METHODS:
        if method.name == name:
            return method
    raise SettingsError(f"unknown strategy {name!r}; known: {', '.join(method.name for method in METHODS)}")


class ConditionSection(TaxonAdapterSection, RankEncoderSection):
    """What a user may set of the conditioners; each reads its own part."""


def _read_settings(value: Any) -> ConditionerSettings:
    """Settings of whichever conditioner `kind` names."""
    if isinstance(value, ConditionerSettings):
        return value
    kinds = {method.conditioner.settings_class.model_fields["kind"].default: method.conditioner for method in METHODS}
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"kind {kind!r} is not known; known: {', '.join(kinds)}")
    try:
        return kinds[kind].settings_class.model_validate(value)
    except ValidationError as error:
        fault = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, fault['loc'])) or kind}: {fault['msg']}") from error


AnyConditionerSettings = SerializeAsAny[Annotated[ConditionerSettings, BeforeValidator(_read_settings)]]
"""A field for the settings of any conditioner: read by `kind`, written whole."""


def build_conditioner(
    settings: ConditionerSettings,
    ranks: Sequence[Rank],
    states: TokenStates,
    taxa: Iterable[Lineage],
    *,
    seed: int = 0,
) -> Conditioner:
    """The conditioner that the settings describe, freshly initialised from `seed`.

    states: a text encoder, or its states from disk. taxa: every taxon of the taxonomy (for tables of taxa).
    """
    conditioner = next(m.conditioner for m in METHODS if m.conditioner.settings_class is type(settings))
    return conditioner(ranks, states, settings, taxa, seed=seed)
