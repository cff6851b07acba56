"""BIOSCAN sets of a few pictures."""

from __future__ import annotations

from pathlib import Path

COLUMNS_1M = (
    "sampleid", "processid", "uri", "name", "phylum", "class", "order", "family", "subfamily", "tribe", "genus",
    "species", "subspecies", "nucraw", "image_file", "large_diptera_family", "medium_diptera_family",
    "small_diptera_family", "large_insect_order", "medium_insect_order", "small_insect_order", "chunk_number",
    "copyright_license", "copyright_holder", "copyright_institution", "copyright_contact", "photographer", "author",
)  # fmt: skip


NOT_CLASSIFIED = dict.fromkeys(("family", "subfamily", "tribe", "genus", "species", "subspecies"), "not_classified")


def write_1m(folder: Path, rows: list[dict[str, str]], stem: str = "BIOSCAN_Insect_Dataset_metadata") -> Path:
    defaults = {**NOT_CLASSIFIED, "phylum": "Arthropoda", "class": "Insecta", "order": "Diptera", "chunk_number": "18"}
    lines = ["\t".join(COLUMNS_1M)]
    lines += ["\t".join({**defaults, **row}.get(column, "") for column in COLUMNS_1M) for row in rows]
    path = folder / f"{stem}.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
