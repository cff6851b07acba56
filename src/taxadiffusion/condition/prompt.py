"""The prompt conditioner of the zero-shot, LoRA and full fine-tuning baselines: the lineage as a sentence."""

# Letters: U unique lineages, T tokens, P parts of a prompt, D width.
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from taxadiffusion.condition.conditioner import Conditioner, single_holes
from taxadiffusion.condition.settings import PromptSettings
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.text import rank_text


def prompt(lineage: Lineage) -> str:
    """The lineage in words, "" when empty; a hole is left out, as nobody would write it."""
    return ", ".join(rank_text(rank, name) for rank, name in lineage.names)


def prompt_parts(lineage: Lineage, ranks: Sequence[Rank], num_parts: int) -> list[str]:
    """The lineage in `num_parts` prompts, each of some consecutive ranks; "" where it has none of them."""
    bounds = [round(index * len(ranks) / num_parts) for index in range(num_parts + 1)]
    return [prompt(lineage.only(ranks[low:high])) for low, high in pairwise(bounds)]


def num_parts_needed(
    taxa: Iterable[Lineage], ranks: Sequence[Rank], num_tokens: Callable[[str], int], limit: int
) -> int:
    """The least number of parts with which no prompt of these taxa has more than `limit` tokens.

    Raises `SettingsError` where a single rank's text is longer than that.
    """
    lineages = list(taxa)
    for num_parts in range(1, len(ranks) + 1):
        texts = {text for lineage in lineages for text in prompt_parts(lineage, ranks, num_parts)}
        longest = max(texts, key=num_tokens, default="")
        if num_tokens(longest) <= limit:
            return num_parts
    raise SettingsError(f"{longest!r} alone has {num_tokens(longest)} tokens; the base's text encoder takes {limit}")


class PromptConditioner(Conditioner):
    """The base's token states of the lineage's prompt; nothing here is trained.

    A prompt that is longer than the text encoder takes is cut into parts between ranks, and the parts' states stand one
    after another: (P·T) tokens. Nothing is left out silently.
    """

    settings: PromptSettings

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, P·T, D)."""
        parts = [prompt_parts(lineage, self.ranks, self.settings.num_parts) for lineage in lineages]
        return torch.cat([self.states(column) for column in zip(*parts, strict=True)], dim=1)

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The prompts of every truncation and single hole."""
        return prompt_texts(lineages, self.ranks, self.settings.num_parts)

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        return {}


def prompt_texts(lineages: Iterable[Lineage], ranks: Sequence[Rank], num_parts: int) -> list[str]:
    """The part prompts of the lineages, their truncations and single holes; no repeats."""
    found = {"": None}
    for lineage in lineages:
        for variant in single_holes(lineage.only(ranks)):
            found.update(dict.fromkeys(prompt_parts(variant, ranks, num_parts)))
    return list(found)
