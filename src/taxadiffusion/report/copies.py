"""What was found of copies, in tables and pictures, always beside what the search can see."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from taxadiffusion.evaluate.memorisation import CopyFindings, CopyFound, Eyesight
from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.images import load_image
from taxadiffusion.metrics.copies import PARTS, PicturePart
from taxadiffusion.report.blocks import Cell, Picture, PictureRow, heading, note, picture_grid, table, text
from taxadiffusion.report.page import Html

CANNOT_TELL = "cannot tell"

MEANING = (
    "A picture is compared with the training photographs nearest to it by features, place by place, over mirrors and "
    "crops, without colours and light: all of it, its middle (the animal), what surrounds it (the scene). It is "
    "flagged where it is more like one of them than nearly all unseen photographs are. Copies of training photographs "
    "were planted to see what is found: a share without theirs means nothing."
)


def copies_table(results: Results) -> tuple[list[str], list[list[Cell]]]:
    """Header and a row for each method and rank: share flagged by part with the planted found, or `CANNOT_TELL`."""
    rows = []
    for method, ranks in results.methods.items():
        for scores in ranks:
            found = scores.copies
            if found and not found.reason:
                looked_at = f"{found.num_looked_at} of {found.num_images}"
                rows.append([Cell(method), Cell(scores.rank), Cell(looked_at), *(_flagged(found, p) for p in PARTS)])
    return ["method", "rank", "looked at", *(f"{part} flagged" for part in PARTS)], rows


def not_looked_words(results: Results) -> str:
    """Of which methods nothing is said, and why; "" where all were looked at."""
    reasons: dict[str, list[str]] = {}
    for method, ranks in results.methods.items():
        for scores in ranks:
            reason = scores.copies.reason if scores.copies else "nobody looked"
            if reason:
                reasons.setdefault(reason, []).append(f"{method} at {scores.rank}")
    return " ".join(f"{CANNOT_TELL.capitalize()} of {', '.join(of)}: {why}." for why, of in reasons.items())


def eyesight_table(eyesight: Mapping[PicturePart, Eyesight]) -> tuple[list[str], list[list[Cell]]]:
    """Header and a row for each kind of planted copy: the share that each part's comparison finds."""
    kinds = next(iter(eyesight.values())).planted if eyesight else {}
    rows = [[Cell(kind), *(_share(eyesight[part].planted[kind]) for part in PARTS)] for kind in kinds]
    if rows:
        false = [
            Cell(f"at most {s.expected:.0%}" if s.threshold is not None else CANNOT_TELL, f"set by {s.num_unseen}")
            for s in (eyesight[part] for part in PARTS)
        ]
        rows.append([Cell("unseen photographs"), *false])
    return ["planted", *PARTS], rows


def copies_words(scores: RankScores) -> str:
    """A sentence on the copies of a method at a rank, with the error rates."""
    return f"Copies of training photographs: {scores.copies.verdict() if scores.copies else CANNOT_TELL}."


def copies_cell(found: CopyFound | None) -> str:
    """Of one taxon's pictures."""
    return CANNOT_TELL if found is None else f"{found.found} of {found.of}"


def copies_blocks(results: Results, size_px: int, number: int = 6) -> tuple[Html, ...]:
    """The tables, then the `number` pictures of each method that are most like a training photograph, beside it.

    So are unseen photographs: one that was in training too raises the threshold, and should be taken out of the data.
    """
    header, rows = copies_table(results)
    blocks = [text(MEANING), table(header, rows)] if rows else []
    unsaid = not_looked_words(results)
    blocks += [note(unsaid)] if unsaid else []
    for kinds_header, kinds, names in _eyesights(results):
        blocks += [heading(f"Planted copies found: {names}"), table(kinds_header, kinds)]
    return (*blocks, picture_grid(_pairs(results, size_px, number), heads=["generated", "a training photograph"]))


def _eyesights(results: Results) -> list[tuple[list[str], list[list[Cell]], str]]:
    """The table of every search, with the methods that it was made for: those that learnt from the same photographs."""
    searches: list[tuple[CopyFindings, list[str]]] = []
    for method, ranks in results.methods.items():
        found = ranks[-1].copies
        if found and any(sight.planted for sight in found.eyesight.values()):
            same = next((names for other, names in searches if other.eyesight == found.eyesight), None)
            if same is None:
                searches.append((found, [method]))
            else:
                same.append(method)
    return [(*eyesight_table(found.eyesight), ", ".join(names)) for found, names in searches]


def _pairs(results: Results, size_px: int, number: int) -> list[PictureRow]:
    rows = []
    for method, ranks in [*results.methods.items(), ("unseen photographs", results.real)]:
        scores = ranks[-1]
        if scores.copies and scores.copies.pairs:
            why = scores.copies.cannot_tell()
            for like in scores.copies.pairs[:number]:
                judged = CANNOT_TELL if why else "flagged as a copy" if like.flagged else "not flagged"
                small = f"{method}: stands out by {like.standing:.2f}, {judged}"
                rows.append(_row(like.generated, like.photograph, like.taxon.label, small, size_px))
        else:
            for near in scores.nearest[:number]:
                small = f"{method}: nearest by features, {near.distance:.3f}; whether it is a copy: {CANNOT_TELL}"
                rows.append(_row(near.generated, near.photograph, near.taxon.label, small, size_px))
    return rows


def _row(generated: str, photograph: str, label: str, small: str, size_px: int) -> PictureRow:
    images = (load_image(Path(generated), size_px), load_image(Path(photograph), size_px))
    return PictureRow(label, ((Picture(images[0]),), (Picture(images[1]),)), small)


def _flagged(found: CopyFindings, part: PicturePart) -> Cell:
    why = found.cannot_tell(part)
    if why:
        return Cell(CANNOT_TELL, why)
    share, sight = found.flagged[part], found.eyesight[part]
    return Cell(f"{share.mean:.3f}", f"{share.low:.3f} to {share.high:.3f}; finds {sight.judged} planted")


def _share(found: CopyFound) -> Cell:
    return Cell(f"{found.share:.2f}", f"of {found.of}")
