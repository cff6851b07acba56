"""The prompt conditioner of the zero-shot, LoRA and full fine-tuning baselines: the lineage as a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from taxadiffusion.condition.conditioner import Conditioner, single_holes
from taxadiffusion.names import Lineage
from taxadiffusion.text import rank_text


def prompt(lineage: Lineage) -> str:
    """The lineage in words, "" when empty; a hole is left out, as nobody would write it."""
    return ", ".join(rank_text(rank, name) for rank, name in lineage.names)


class PromptConditioner(Conditioner):
    """The base's token states of the lineage's prompt; nothing here is trained."""

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T, D)."""
        return self.states([prompt(lineage) for lineage in lineages])

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The prompts of every truncation and single hole."""
        known = (lineage.only(self.ranks) for lineage in lineages)
        return list(dict.fromkeys(["", *(prompt(part) for lineage in known for part in single_holes(lineage))]))

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        return {}
