# SPDX-License-Identifier: Apache-2.0
"""A node for ComfyUI: the condition of a taxon, from a file that `taxadiffusion export-model` wrote.

This file stands alone: `export-model` copies it as it is, and in ComfyUI it needs nothing that ComfyUI lacks.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from typing import Any

FOLDER = "taxadiffusion"
"""Of ComfyUI's `models` folder: where the files of conditions lie."""

UNCONDITIONAL = "(unconditional)"
AS_NAMED = "as named"
RANKS = (
    "domain", "kingdom", "phylum", "subphylum", "superclass", "class", "subclass", "infraclass", "superorder", "order",
    "suborder", "infraorder", "superfamily", "family", "subfamily", "tribe", "genus", "subgenus", "species",
    "subspecies",
)  # fmt: skip

Lineage = tuple[tuple[str, str], ...]
"""(rank, name), coarse to fine, as the keys of a file write it: "order: Perciformes > family: Zanclidae"."""


class TaxonCondition:
    """Reads one condition of the file; the empty name is "unconditional", the usual negative."""

    CATEGORY = "conditioning/taxadiffusion"
    DESCRIPTION = "The condition of a taxon, in the place of a prompt."
    FUNCTION = "load"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 - ComfyUI's name
        return {
            "required": {
                "file": (_folder_paths().get_filename_list(FOLDER),),
                "taxon": ("STRING", {"default": "", "tooltip": "Zanclus cornutus, Zanclidae …; empty: unconditional"}),
                "rank": ([AS_NAMED, *RANKS], {"default": AS_NAMED, "tooltip": "Draw its ancestor at this rank."}),
            }
        }

    def load(self, file: str, taxon: str, rank: str) -> tuple[list[list[Any]]]:
        """CONDITIONING: (1, T, D). Raises `ValueError` for a taxon that the file has not."""
        import safetensors

        path = _folder_paths().get_full_path(FOLDER, file)
        if path is None:
            raise ValueError(f"models/{FOLDER}/{file} is not there")
        with safetensors.safe_open(path, framework="pt", device="cpu") as stream:
            condition = stream.get_tensor(find(stream.keys(), taxon, rank))
        return ([[condition, {"pooled_output": None}]],)


def find(keys: Iterable[str], taxon: str, rank: str = AS_NAMED) -> str:
    """The key of a taxon: of its label, of its whole lineage, or of its ancestor at `rank`.

    Raises `ValueError` for a name that no key has (naming like ones) or several have.
    """
    known = list(keys)
    asked = " ".join(taxon.split())
    if not asked or asked == UNCONDITIONAL:
        return UNCONDITIONAL
    lineages = {key: _lineage(key) for key in known if key != UNCONDITIONAL}
    found = [key for key, names in lineages.items() if asked == key or asked.casefold() == _label(names).casefold()]
    if not found:
        like = difflib.get_close_matches(asked, [_label(names) for names in lineages.values()], n=3)
        raise ValueError(f"the file has no taxon {asked!r}" + (f"; did you mean {' or '.join(like)}?" if like else ""))
    if len(found) > 1:
        raise ValueError(f"{asked!r} names several taxa; write the whole lineage: {' or '.join(found)}")
    if rank == AS_NAMED:
        return found[0]
    names = lineages[found[0]]
    own = [own_rank for own_rank, _ in names]
    if rank not in own:
        raise ValueError(f"{asked} has no {rank} in this file; it has {', '.join(own)}")
    return " > ".join(f"{own_rank}: {name}" for own_rank, name in names[: own.index(rank) + 1])


def _lineage(key: str) -> Lineage:
    return tuple((rank, name) for rank, _, name in (part.partition(": ") for part in key.split(" > ")))


def _label(names: Lineage) -> str:
    """ "Zanclus cornutus" at species rank, with a subspecies "Canis lupus lupus", else the finest name."""
    by_rank = dict(names)
    finest = names[-1][0]
    if finest in ("species", "subspecies") and {"genus", "species"} <= set(by_rank):
        parts = [by_rank["genus"], by_rank["species"], *([by_rank["subspecies"]] if finest == "subspecies" else [])]
        return " ".join(parts)
    return names[-1][1]


def _folder_paths() -> Any:
    """ComfyUI's table of folders, with ours in it."""
    import folder_paths  # type: ignore[import-not-found]

    if FOLDER not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))  # noqa: PTH118
    return folder_paths


NODE_CLASS_MAPPINGS = {"TaxaDiffusionTaxon": TaxonCondition}
NODE_DISPLAY_NAME_MAPPINGS = {"TaxaDiffusionTaxon": "Taxon (TaxaDiffusion)"}
