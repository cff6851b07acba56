"""Draw the method: which encoders a stage trains and what its condition is made of, asked of the code itself.

    python -m training.method_figure --out docs/pictures/method.svg

Stages come from `stages.plan`, texts from `text.rank_text`, and which encoders enter a condition is measured on a small
conditioner: an encoder does where the condition is no more the same without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from taxadiffusion.base.text import rank_text
from taxadiffusion.base.weights import read_json, shipped
from taxadiffusion.condition import TaxonomyConditioner, TaxonomySettings
from taxadiffusion.condition.methods import method_named
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.stages import Stage, encoder_group, plan
from taxadiffusion.taxonomy import Taxonomy, find_taxon

SPECIES = "Zanclus cornutus"
NUM_TOKENS, WIDTH = 3, 8

LEARNS, FROZEN, INK, FAINT = "#f4a261", "#cfd8dc", "#263238", "#b0bec5"
COLUMN, ROW, TOP, LEFT = 158, 74, 122, 112
BOX_WIDTH, BOX_HEIGHT = 116, 42


@dataclass(frozen=True)
class States:
    """Token states of texts by a text encoder that never existed: all that a conditioner asks of one."""

    num_tokens: int = NUM_TOKENS
    width: int = WIDTH
    content_hash: str = ""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, T, D)."""
        found = []
        for text in texts:
            generator = torch.Generator().manual_seed(sum(map(ord, text)))
            found.append(torch.randn(self.num_tokens, self.width, generator=generator))
        return torch.stack(found)


@torch.no_grad()
def terms_of(lineage: Lineage, ranks: Sequence[Rank]) -> tuple[Rank, ...]:
    """The ranks whose encoders enter the lineage's condition. `AssertionError` where it is not their plain sum."""
    states = States()
    settings = TaxonomySettings(num_layers=1, num_heads=2, feed_forward=16, dropout=0)
    conditioner = TaxonomyConditioner(ranks, states, settings).eval()
    condition = conditioner([lineage])[0]  # (T, D)
    total, entering = torch.zeros_like(condition), []
    for rank in ranks:
        encoder = conditioner.encoders[rank]
        term = encoder(states([rank_text(rank, lineage.get(rank))]))[0]
        kept = {name: parameter.clone() for name, parameter in encoder.named_parameters()}
        for parameter in encoder.parameters():
            parameter.zero_()
        if not torch.equal(conditioner([lineage])[0], condition):
            entering.append(rank)
            total += term
        encoder.load_state_dict(kept)
    assert torch.allclose(total, condition, atol=1e-5), "the condition is not the sum of its terms"
    return tuple(entering)


def text(x: float, y: float, words: str, size: int = 13, anchor: str = "middle", style: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" text-anchor="{anchor}" {style}>{escape(words)}</text>'


def box(x: float, y: float, words: str, below: str, fill: str, ink: str = INK) -> str:
    dashed = 'stroke-dasharray="4 4"' if fill == "none" else ""
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="7" fill="{fill}" stroke="{ink}" '
        f"{dashed}/>"
        + text(x + BOX_WIDTH / 2, y + 18, words, 14, style=f'fill="{ink}" font-weight="bold"')
        + text(x + BOX_WIDTH / 2, y + 34, below, 11, style=f'fill="{ink}"')
    )


def drawn_stage(number: int, stage: Stage, ranks: Sequence[Rank], lineage: Lineage) -> list[str]:
    """One row: its encoders, the condition, the U-Net."""
    y = TOP + number * ROW
    middle = y + BOX_HEIGHT / 2 + 5
    entering = terms_of(lineage.truncated(stage.rank), ranks)
    parts = [
        text(14, y + 18, f"stage {number + 1}", 14, "start", 'font-weight="bold"'),
        text(14, y + 34, stage.name, 12, "start"),
    ]
    for column, rank in enumerate(ranks):
        x = LEFT + column * COLUMN
        if rank not in entering:
            parts.append(box(x, y, f"E {rank}", "not there yet", "none", FAINT))
        else:
            learns = encoder_group(rank) in stage.trains
            parts.append(box(x, y, f"E {rank}", "learns" if learns else "frozen", LEARNS if learns else FROZEN))
        if column and rank in entering:
            parts.append(text(x - (COLUMN - BOX_WIDTH) / 2, middle, "+", 20))
    x = LEFT + len(ranks) * COLUMN
    parts.append(text(x - (COLUMN - BOX_WIDTH) / 2, middle, "=", 20))
    parts.append(box(x, y, f"c ({number + 1})", "condition", "#ffffff"))
    parts.append(text(x + BOX_WIDTH + (COLUMN - BOX_WIDTH) / 2, middle, "→", 20))
    lora = "lora" in stage.trains
    parts.append(box(x + COLUMN, y, "U-Net", "LoRA learns" if lora else "LoRA frozen", LEARNS if lora else FROZEN))
    return parts


def figure(ranks: Sequence[Rank], lineage: Lineage) -> str:
    """The SVG: a row a stage, coarse to fine."""
    stages = plan(method_named("progressive"), ranks, 1)
    width, height = LEFT + (len(ranks) + 2) * COLUMN - 20, TOP + len(stages) * ROW + 66
    parts = [text(14, 30, f"{lineage.label}: one stage a rank, coarse to fine", 18, "start", 'font-weight="bold"')]
    frozen = f'<rect x="{LEFT}" y="82" width="{len(ranks) * COLUMN - COLUMN + BOX_WIDTH}" height="22" rx="5" '
    parts.append(f'{frozen}fill="{FROZEN}" stroke="{INK}"/>')
    parts.append(text(LEFT + ((len(ranks) - 1) * COLUMN + BOX_WIDTH) / 2, 97, "text encoder T (frozen)", 12))
    for column, rank in enumerate(ranks):
        x = LEFT + column * COLUMN + BOX_WIDTH / 2
        parts.append(text(x, 64, rank_text(rank, lineage.get(rank)), 12, style='font-style="italic"'))
        parts.append(text(x, 78, "↓", 12))
        parts.append(text(x, 118, "↓", 12))
    for number, stage in enumerate(stages):
        parts += drawn_stage(number, stage, ranks, lineage)
    y = TOP + len(stages) * ROW + 12
    words = (
        "Every stage learns to predict the noise in all photographs, under its own condition. Pictures are drawn with"
    )
    parts.append(text(14, y + 6, words, 13, "start"))
    equation = "base + scale · (target − base)"
    parts.append(text(14, y + 30, equation, 15, "start", 'font-weight="bold"'))
    words = f"target: predicted under c ({len(stages)});  base: under the null, or under the condition of an ancestor"
    parts.append(text(14 + 9.2 * len(equation), y + 30, words, 13, "start"))
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" fill="{INK}">\n'
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>\n{body}\n</svg>\n'
    )


def shipped_figure() -> str:
    """Of the ranks and names of the shipped reef-fish adapter."""
    taxonomy = Taxonomy.from_json(read_json(shipped("reef-fish") / "taxonomy.json"))
    ranks = tuple(read_json(shipped("reef-fish") / "adapter.json")["ranks"])
    return figure(ranks, find_taxon(taxonomy, SPECIES).lineage.only(ranks))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="SVG file")
    parser.parse_args().out.write_text(shipped_figure(), encoding="utf-8")


if __name__ == "__main__":
    main()
