"""A model's card: the README that the hub reads, and what a person should know before using the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from taxadiffusion.adapter import Adapter
from taxadiffusion.pictures.trusted import USUAL_ERROR, Trusted
from taxadiffusion.sharing.measured import Measured, measured_lines
from taxadiffusion.sharing.not_for import NOT_FOR
from taxadiffusion.sharing.photographs import Learnt, learnt_lines

_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_NUM_NAMED = 20
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class Shared:
    """What the one who shares says. datasets: hub ids. pictures: taxon's label → path in the repository."""

    repo: str
    licence: str
    datasets: Sequence[str] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)


def model_card(adapter: Adapter, shared: Shared, learnt: Learnt, measured: Measured | None, training: str) -> str:
    """Markdown with front matter. training: the card that the training wrote."""
    name = shared.repo.rpartition("/")[2]
    front = yaml.safe_dump(
        front_matter(adapter, shared, measured), sort_keys=False, allow_unicode=True, width=1000
    ).strip()
    ranks = ", ".join(adapter.card.ranks)
    return "\n".join([
        "---", front, "---",
        f"# {name}", "",
        f"Draws taxa by their lineage ({ranks}) with [TaxaDiffusion](https://arxiv.org/abs/2506.01923), "
        f"on the base `{adapter.card.base}`.",
        "Every picture is synthetic.", "",
        *(["<Gallery />", ""] if shared.pictures else []),
        *_use(adapter, shared),
        "## What it learnt from", "",
        *learnt_lines(learnt), "",
        "## How right it is", "",
        *measured_lines(measured), "",
        *trusted_lines(adapter),
        "## What it must not be used for", "",
        *(f"* {what}" for what in NOT_FOR), "",
        "The licences of the photographs may bind its pictures too. None of the photographs is in this repository.", "",
        "## How it was trained", "",
        _FRONT.sub("", training).strip().replace("\n# ", "\n### ").removeprefix("# "), "",
    ])  # fmt: skip


def trusted_lines(adapter: Adapter) -> list[str]:
    """To which rank pictures are trusted, where the model's folder says it, with the taxa that fall short."""
    known = Trusted.beside(adapter.path, adapter.card.content_hash)
    if known is None:
        return []
    depths = known.depths(USUAL_ERROR)
    by_rank: dict[str, list[str]] = {}
    for lineage, rank in depths.items():
        by_rank.setdefault(rank or "no rank", []).append(lineage.label)
    finest = known.ranks[-1]
    lines = [f"Trusted at {1 - USUAL_ERROR:.0%}, of {len(depths)} taxa judged by {known.judge}:", ""]
    for rank, labels in by_rank.items():
        names = (
            "" if rank == finest else f" ({', '.join(sorted(labels)[:_NUM_NAMED])}{' …' * (len(labels) > _NUM_NAMED)})"
        )
        lines.append(f"* to {rank}: {len(labels)}{names}")
    return [*lines, ""]


def _use(adapter: Adapter, shared: Shared) -> list[str]:
    taxon = next(iter(shared.pictures), None) or adapter.taxonomy.lineage(len(adapter.taxonomy) - 1).label
    opened = f'DiffusionPipeline.from_pretrained("{shared.repo}", custom_pipeline="pipeline", trust_remote_code=True)'
    return [
        "## Use", "",
        "    pip install taxadiffusion",
        f'    taxadiffusion generate {shared.repo} "{taxon}"', "",
        "or in Python", "",
        f"    pipeline = {opened}",
        f'    pipeline("{taxon}").images[0]', "",
    ]  # fmt: skip


def front_matter(adapter: Adapter, shared: Shared, measured: Measured | None) -> dict[str, Any]:
    """What the hub reads: https://huggingface.co/docs/hub/model-cards."""
    front: dict[str, Any] = {"license": shared.licence, "library_name": "diffusers", "pipeline_tag": "text-to-image"}
    if _HUB_ID.fullmatch(adapter.card.base):
        front |= {"base_model": adapter.card.base, "base_model_relation": "adapter"}
    if shared.datasets:
        front["datasets"] = list(shared.datasets)
    tags = ["taxadiffusion", "text-to-image", "species", "biodiversity", "taxonomy"]
    front["tags"] = [*tags, *(["lora"] if adapter.card.lora else [])]
    if shared.pictures:
        front["widget"] = [{"text": taxon, "output": {"url": url}} for taxon, url in shared.pictures.items()]
    if measured is not None and measured.figures:
        front["model-index"] = [{"name": shared.repo.rpartition("/")[2], "results": _results(measured)}]
    return front


def _results(measured: Measured) -> list[dict[str, Any]]:
    """One result a rank."""
    ranks = dict.fromkeys(figure.rank for figure in measured.figures)
    return [
        {
            "task": {"type": "text-to-image"},
            "dataset": {"name": f"{measured.dataset}, {rank}", "type": measured.dataset, "config": rank},
            "metrics": [
                {
                    "type": figure.key,
                    "value": round(figure.mean, 6),
                    "name": f"{figure.label} (95 % interval {figure.low:.3f} to {figure.high:.3f})",
                }
                for figure in measured.figures
                if figure.rank == rank
            ],
        }
        for rank in ranks
    ]
