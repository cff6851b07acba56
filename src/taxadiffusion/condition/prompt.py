"""The prompt conditioner of the zero-shot, LoRA and full fine-tuning baselines: the lineage as a sentence."""

# Letters: U unique lineages, T tokens, P parts of a prompt, D width.
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from taxadiffusion.base.text import TokenStates, rank_text
from taxadiffusion.condition.conditioner import Conditioner, NameGain, RunFacts, WithGain, single_holes
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sections import SettingsSection, later


class PromptSection(SettingsSection):
    """What a user may set of conditions that are prompts."""

    prompt_name_gain: NameGain = later(1.0, "the same for prompts: strategies zero_shot, lora, full, taxon_adapter")


class PromptSettings(WithGain):
    """The base's own text encoder over "order: Perciformes, family: Pomacentridae, …".

    num_parts: into how many prompts a lineage is cut where one would be too long for the text encoder. name_gain: how
    much larger the difference of a prompt's states from those of the same prompt with "none" for every name is made; of
    one text encoder, what is done for the names of `TaxonomySettings` can be done for prompts.
    """

    kind: Literal["prompt"] = "prompt"
    num_parts: int = Field(default=1, ge=1, le=32)
    name_gain: NameGain = 1.0

    @classmethod
    def of_run(cls, section: PromptSection, facts: RunFacts) -> Self:
        """In as many parts as the longest prompt asks."""
        gain = section.prompt_name_gain
        return cls(num_parts=num_parts_for(facts, gain), name_gain=gain)

    @classmethod
    def gain_key(cls, section: PromptSection) -> str | None:  # noqa: ARG003
        return "prompt_name_gain"


def prompt(lineage: Lineage) -> str:
    """The lineage in words, "" when empty; a hole is left out, as nobody would write it."""
    return ", ".join(rank_text(rank, name) for rank, name in lineage.names)


def prompt_parts(lineage: Lineage, ranks: Sequence[Rank], num_parts: int) -> list[str]:
    """The lineage in `num_parts` prompts, each of some consecutive ranks; "" where it has none of them."""
    bounds = [round(index * len(ranks) / num_parts) for index in range(num_parts + 1)]
    return [prompt(lineage.only(ranks[low:high])) for low, high in pairwise(bounds)]


def nameless_prompt_parts(lineage: Lineage, ranks: Sequence[Rank], num_parts: int) -> list[str]:
    """The same prompts with "none" for every name: what a gain of names is measured from; "" stays ""."""
    bounds = [round(index * len(ranks) / num_parts) for index in range(num_parts + 1)]
    parts = [lineage.only(ranks[low:high]).names for low, high in pairwise(bounds)]
    return [", ".join(rank_text(rank, None) for rank, _ in names) for names in parts]


def prompt_states(
    lineages: Sequence[Lineage], ranks: Sequence[Rank], states: TokenStates, num_parts: int, name_gain: float
) -> list[Tensor]:
    """The states of each part of the lineages' prompts, each (U, T, D), names enlarged by `name_gain`."""
    parts = zip(*(prompt_parts(lineage, ranks, num_parts) for lineage in lineages), strict=True)
    named = [states(column) for column in parts]
    if name_gain == 1.0:
        return named
    nameless = zip(*(nameless_prompt_parts(lineage, ranks, num_parts) for lineage in lineages), strict=True)
    return [none + name_gain * (own - none) for own, none in zip(named, map(states, nameless), strict=True)]


def num_parts_needed(
    taxa: Iterable[Lineage],
    ranks: Sequence[Rank],
    num_tokens: Callable[[str], int],
    limit: int,
    *,
    nameless: bool = False,
) -> int:
    """The least number of parts with which no prompt of these taxa, nor `nameless` one, has more than `limit` tokens.

    Raises `SettingsError` where a single rank's text is longer than that.
    """
    lineages = list(taxa)
    for num_parts in range(1, len(ranks) + 1):
        texts = {text for lineage in lineages for text in prompt_parts(lineage, ranks, num_parts)}
        if nameless:
            texts |= {text for lineage in lineages for text in nameless_prompt_parts(lineage, ranks, num_parts)}
        longest = max(texts, key=num_tokens, default="")
        if num_tokens(longest) <= limit:
            return num_parts
    raise SettingsError(f"{longest!r} alone has {num_tokens(longest)} tokens; the base's text encoder takes {limit}")


def num_parts_for(facts: RunFacts, name_gain: float) -> int:
    """The same for a run's taxa and base."""
    return num_parts_needed(facts.taxa, facts.ranks, facts.length, facts.num_text_tokens, nameless=name_gain != 1.0)


class PromptConditioner(Conditioner):
    """The base's token states of the lineage's prompt; nothing here is trained.

    A prompt that is longer than the text encoder takes is cut into parts between ranks, and the parts' states stand one
    after another: (P·T) tokens. Nothing is left out silently.
    """

    settings_class = PromptSettings
    settings: PromptSettings

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, P·T, D)."""
        own = self.settings
        return torch.cat(prompt_states(lineages, self.ranks, self.states, own.num_parts, own.name_gain), dim=1)

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The prompts of every truncation and single hole; with a gain, the nameless ones as well."""
        return prompt_texts(lineages, self.ranks, self.settings.num_parts, nameless=self.settings.name_gain != 1.0)

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        return {}


def prompt_texts(
    lineages: Iterable[Lineage], ranks: Sequence[Rank], num_parts: int, *, nameless: bool = False
) -> list[str]:
    """The part prompts of the lineages, their truncations and single holes, `nameless` ones too; no repeats."""
    found = {"": None}
    for lineage in lineages:
        for variant in single_holes(lineage.only(ranks)):
            found.update(dict.fromkeys(prompt_parts(variant, ranks, num_parts)))
            if nameless:
                found.update(dict.fromkeys(nameless_prompt_parts(variant, ranks, num_parts)))
    return list(found)
