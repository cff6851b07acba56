"""What makes `prepare` refuse a source: contradictions, all listed at once, and too many bad rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from taxadiffusion.dataset.duplicates import find_repeats
from taxadiffusion.dataset.findings import Conflict, Tree, all_conflicts
from taxadiffusion.dataset.listing import ROWS_PER_BATCH, Listing, Quarantine
from taxadiffusion.errors import DataError
from taxadiffusion.readers import left_out
from taxadiffusion.readers.links import REFUSED_FOLDERS

Bools = npt.NDArray[np.bool_]
_MAX_LISTED = 1_000
TWO_LABELS = "the picture has two labels"


def judge_listing(listing: Listing, *, allow: bool) -> tuple[Bools, Bools, int]:
    """(repeated, two_labels, number of contradictions), over the listing's N rows.

    Raises `DataError` that lists every taxon under two parents and every image with two labels, unless `allow`: such
    taxa are then kept apart, as their lineages are, and such images are left out.
    """
    images = np.bincount(listing.taxon_ids, minlength=len(listing.taxonomy)).astype(np.int64)
    conflicts = all_conflicts(Tree(listing.taxonomy, images, listing.first_row))
    usable = np.ones(len(listing), np.bool_)
    repeats = find_repeats(listing.keys, listing.taxon_ids, usable)
    if not allow:
        refuse(listing, conflicts, repeats.contradicting)
    two_labels = same_key(listing.keys, repeats.contradicting)
    return repeats.repeated & ~two_labels, two_labels, len(conflicts) + len(repeats.contradicting)


def refuse(listing: Listing, conflicts: list[Conflict], two_labels: list[tuple[int, int]]) -> None:
    """Raises `DataError` with one line for each contradiction; does nothing without any."""
    lines = [_conflict_line(conflict) for conflict in conflicts]
    for first, second in two_labels[:_MAX_LISTED]:
        (where_a, image_a), (where_b, image_b) = place(listing, first), place(listing, second)
        labels = [listing.taxonomy.lineage(int(listing.taxon_ids[row])).label for row in (first, second)]
        same = f"{image_a} is" if image_a == image_b else f"{image_a} and {image_b} are one picture,"
        lines.append(f"{where_a} and {where_b}: {same} labelled both {labels[0]!r} and {labels[1]!r}")
    count = len(conflicts) + len(two_labels)
    if count:
        shown = "\n  ".join(lines[:_MAX_LISTED])
        more = f"\n  … and {count - _MAX_LISTED} more" if count > _MAX_LISTED else ""
        head = f"{count} contradictions" if count > 1 else "1 contradiction"
        raise DataError(
            f"{head}:\n  {shown}{more}\nCorrect the table, or write rules for --fix (see taxadiffusion check), or keep "
            "such taxa apart and leave such pictures out with --allow-contradictions"
        )


def _conflict_line(conflict: Conflict) -> str:
    parents = "; ".join(f"{name} ({images} images, first {row})" for name, images, row in conflict.parents)
    return f"{conflict.rank} {conflict.name} lies in {len(conflict.parents)} {conflict.parent_rank} taxa: {parents}"


def same_key(keys: npt.NDArray[np.uint64], pairs: list[tuple[int, int]]) -> Bools:
    """(N,) every row whose key is that of one of the pairs."""
    return np.isin(keys, keys[[row for pair in pairs for row in pair]]) if pairs else np.zeros(len(keys), np.bool_)


def place(listing: Listing, row: int) -> tuple[str, str]:
    """("table:row", image) of a listed row."""
    batch = listing.batches().get_batch(row // ROWS_PER_BATCH)
    at = row % ROWS_PER_BATCH
    image = batch.column("image")[at].as_py()
    member = batch.column("member")[at].as_py()
    return f"{batch.column('source')[at].as_py()}:{batch.column('row')[at].as_py()}", (member or image)


def judge_folders(quarantine: Quarantine) -> None:
    """Raises `DataError` where whole folders are left out: nobody knows how many pictures, so no fraction allows it."""
    reasons = [reason for reason in REFUSED_FOLDERS if quarantine.reasons[reason]]
    if reasons:
        named = "".join(f"\n  {', '.join(quarantine.first[reason])}: {reason}" for reason in reasons)
        number = sum(quarantine.reasons[reason] for reason in reasons)
        raise DataError(
            f"{number} folders or links to such are left out, with all their pictures:{named}\nRepair or remove them. "
            f"All are listed in {quarantine.path}"
        )


def judge_fraction(
    num_rows: int, quarantine: Quarantine, max_bad_fraction: float, passed_over: Mapping[str, int]
) -> None:
    """Raises `DataError` when more than the allowed share of the rows is quarantined, or nothing is left.

    `passed_over` are the reader's counts of what is no row by design, which the message names as well.
    """
    num_bad = len(quarantine)
    common = "; ".join(f"{count} × {reason}" for reason, count in quarantine.reasons.most_common(5))
    passed = "".join(f"; {words}: {count}" for words, count in left_out(passed_over).items())
    if num_rows == 0:
        raise DataError(f"the source has no rows of pictures{passed}")
    told = f"{common}{passed}. All are listed in {quarantine.path}"
    if num_bad == num_rows:
        raise DataError(f"none of the {num_rows} rows can be used: {told}")
    if num_bad > max_bad_fraction * num_rows:
        raise DataError(
            f"{num_bad} of {num_rows} rows cannot be used, more than --max-bad-fraction {max_bad_fraction:g}: {told}"
        )
