"""Does a synthetic set help? The comparison as a page, Markdown and JSON; "no gain" stands first where it is so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from taxadiffusion.metrics.intervals import Interval
from taxadiffusion.report.blocks import Cell, code, facts, heading, note, table, text
from taxadiffusion.report.page import Html, Section, page
from taxadiffusion.report.tables import markdown_table
from taxadiffusion.synthetic.gain import Difference, Effect, Gains
from taxadiffusion.synthetic.sources import Sources
from taxadiffusion.synthetic.utility import Comparison

RECOMMENDED = "recommended.csv"

_EFFECTS: tuple[Effect, ...] = ("helps", "hurts", "not told apart")

MEANING = (
    "Macro F1: the mean over species of each one's F1, all species taken as equally frequent among what judges. "
    "Intervals: 95 %, over species and trainings; differences are paired, species by species and training by training. "
    "Trainings of other folds share most of their photographs and are judged by the same ones, so they vary less than "
    "trainings on other photographs would."
)
SPECIES_MEANING = (
    "F1 in the best filtered row minus that in “real, resampled”, where photographs make up the same numbers. "
    "Intervals are over trainings, judged by the same photographs. By chance alone about one species in twenty would "
    "seem to be helped or hurt."
)
EVEN_MEANING = (
    "Even odds: the same classifier as of real photographs alone, which then takes all species as equally frequent. "
    "Where that gains, rare species lacked weight and not pictures."
)
CALIBRATION = (
    "Calibration error: how far confidence lies from the share that is right (15 bins); 0 is as right as it says."
)


def write_utility(
    gained: Gains,
    sources: Sources,
    comparison: Comparison,
    refused: dict[str, list[dict[str, Any]]],
    out: Path,
    command: str,
    facts_of: dict[str, Any],
) -> None:
    """`report.html`, `report.md` and `results.json` in `out`. facts_of: data set and extractor, for the recipe."""
    out.mkdir(parents=True, exist_ok=True)
    protocol = {**facts_of, **_protocol(sources, comparison)}
    document = {
        "command": command,
        "protocol": protocol,
        "verdicts": verdicts(gained, comparison),
        "rows": [_plain(one) for one in gained.rows],
        "differences": [{**_plain(one), "sign": one.sign} for one in gained.differences],
        "species": [{**_plain(one), "taxon": str(one.taxon), "effect": one.effect} for one in gained.species],
        "best": gained.best,
        "num_rare": gained.num_rare,
        "num_species_not_judged": gained.num_not_judged,
        "filters": refused,
    }
    (out / "results.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    (out / "report.md").write_text(_markdown(gained, sources, comparison), encoding="utf-8")
    sections = (
        Section("At a glance", _glance(gained, sources, comparison)),
        Section("Rows", (table(*_rows(gained), caption=f"{MEANING} {EVEN_MEANING} {CALIBRATION}"),)),
        Section(
            "Differences", (table(*_differences(gained), caption="A gain or a harm is an interval without zero."),)
        ),
        Section("Species", _species_blocks(gained)),
        Section("What the filters refused", _filter_blocks(refused)),
        Section("Recipe", (code(command), code(json.dumps(protocol, indent=2, ensure_ascii=False)))),
    )
    html = page("Does it help a classifier?", f"Synthetic pictures for {facts_of['dataset']}", sections)
    (out / "report.html").write_text(html, encoding="utf-8")


def verdicts(gained: Gains, comparison: Comparison) -> dict[str, str]:
    """In words, of each classifier and of all species or the rare ones: gain, harm or no gain."""
    return {
        f"{classifier}, {'rare' if rare else 'all'} species": gained.verdict(classifier, rare=rare)
        for classifier in comparison.classifiers
        for rare in ((False, True) if gained.num_rare else (False,))
    }


def verdict_words(gained: Gains, comparison: Comparison) -> str:
    """The whole finding in a sentence or two."""
    found = verdicts(gained, comparison)
    where = [words for words, sign in found.items() if sign == "gain"]
    harm = [words for words, sign in found.items() if sign == "harm"]
    parts = [
        f"Gain: {'; '.join(where)}."
        if where
        else "No gain: nowhere do the filtered pictures beat real photographs (at even odds too), "
        "resampled ones and copy and paste beyond chance."
    ]
    if harm:
        parts.append(f"Harm: {'; '.join(harm)}.")
    return " ".join(parts)


def judged_by(sources: Sources) -> str:
    """Which photographs judge, and what the generator may have seen of them."""
    if sources.judged is not None:
        splits = " and ".join(f"“{split}”" for split in sources.judged_splits)
        return f"{len(sources.judged)} photographs, published as {splits}, judge every row; nothing learnt from them."
    return (
        "The data set publishes no split to judge by, so each fold is judged by the training photographs that it "
        "leaves out. The generator may have learnt from these: its rows may look better than they are."
    )


def _protocol(sources: Sources, comparison: Comparison) -> dict[str, Any]:
    return {
        "species": len(sources.taxa),
        "training photographs": len(sources.learnt),
        "judged by": judged_by(sources),
        "photographs of other species, not judged": sources.left_out,
        "comparison": asdict(comparison),
        "content": sources.content_hash,
    }


def _glance(gained: Gains, sources: Sources, comparison: Comparison) -> tuple[Html, ...]:
    effects = [one.effect for one in gained.species]
    return (
        text(verdict_words(gained, comparison)),
        facts(verdicts(gained, comparison)),
        text(judged_by(sources)),
        text(f"Of {len(effects)} species with pictures: {', '.join(f'{effects.count(e)} {e}' for e in _EFFECTS)}."),
        *([note(f"{gained.num_not_judged} species have no photograph that judges.")] if gained.num_not_judged else []),
    )


def _rows(gained: Gains) -> tuple[list[str], list[list[Cell]]]:
    header = ["row", "classifier", "macro F1", "macro F1, rare", "named right", "calibration error", "pictures"]
    return header, [
        [
            Cell(one.row),
            Cell(one.classifier),
            _cell(one.macro_f1),
            _cell(one.rare_f1),
            Cell(f"{one.named_right:.3f}"),
            Cell(f"{one.calibration_error:.3f}"),
            Cell(f"{one.num_learnt:.0f}"),
        ]
        for one in gained.rows
    ]


def _differences(gained: Gains) -> tuple[list[str], list[list[Cell]]]:
    header = ["row", "minus", "classifier", "species", "macro F1", ""]
    return header, [_difference(one) for one in gained.differences]


def _difference(one: Difference) -> list[Cell]:
    words = [one.row, one.other, one.classifier, "rare" if one.rare else "all"]
    return [*map(Cell, words), _cell(one.f1, signed=True), Cell(one.sign)]


def _species(gained: Gains) -> tuple[list[str], list[list[Cell]]]:
    header = ["species", "photographs", "judging", "F1, real alone", "gain", ""]
    return header, [
        [
            Cell(one.taxon.label),
            Cell(str(one.photographs)),
            Cell(str(one.judged)),
            Cell(f"{one.real_f1:.3f}"),
            _cell(one.f1, signed=True),
            Cell(one.effect),
        ]
        for one in gained.species
    ]


def _species_blocks(gained: Gains) -> tuple[Html, ...]:
    plan = (
        f"A plan without the species that did not gain is {RECOMMENDED}; `augment --plan` reads it. It was chosen by "
        "the photographs that judge here, so its own gain must be measured on others."
        if any(one.f1.mean > 0 for one in gained.species)
        else "No species gained, so no plan is recommended."
    )
    return (text(plan), heading(gained.best), table(*_species(gained), caption=SPECIES_MEANING))


def _filter_blocks(refused: dict[str, list[dict[str, Any]]]) -> tuple[Html, ...]:
    header = ["set", "fold", "accepted", "refused", "copies"]
    rows: list[Sequence[Cell | str]] = [
        [name, str(fold), str(one["accepted"]), _refused(one), one["remark"]]
        for name, folds in refused.items()
        for fold, one in enumerate(folds)
    ]
    return (table(header, rows, caption="Each fold's filter has seen the photographs of that fold alone."),)


def _refused(one: dict[str, Any]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in one["refused"].items()) or "none"


def _markdown(gained: Gains, sources: Sources, comparison: Comparison) -> str:
    parts = ["# Does it help a classifier?", verdict_words(gained, comparison), judged_by(sources)]
    for title, (header, rows), words in (
        ("Rows", _rows(gained), f"{MEANING} {EVEN_MEANING} {CALIBRATION}"),
        ("Differences", _differences(gained), "A gain or a harm is an interval without zero."),
        (f"Species, {gained.best}", _species(gained), SPECIES_MEANING),
    ):
        plain = [[f"{cell.value} ({cell.small})" if cell.small else cell.value for cell in row] for row in rows]
        parts += [f"## {title}", words, markdown_table(header, plain)]
    return "\n\n".join(parts) + "\n"


def _cell(interval: Interval | None, *, signed: bool = False) -> Cell:
    if interval is None:
        return Cell("none")
    form = "+.3f" if signed else ".3f"
    small = f"{interval.low:{form}} to {interval.high:{form}}" if interval.known else "spread unknown"
    return Cell(f"{interval.mean:{form}}", small)


def _plain(one: Any) -> dict[str, Any]:
    """A frozen dataclass in plain values; an interval as `to_json` has it."""
    values = {name: getattr(one, name) for name in one.__dataclass_fields__}
    return {name: value.to_json() if isinstance(value, Interval) else value for name, value in values.items()}
