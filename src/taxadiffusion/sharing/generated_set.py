"""A folder that `generate` made, as a data set for others: its card, and Croissant's description of it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from taxadiffusion.errors import DataError
from taxadiffusion.names import RANKS
from taxadiffusion.pictures.png import SOURCE
from taxadiffusion.pictures.recipe import SHARED, TABLE
from taxadiffusion.sharing.not_for import NOT_FOR

CROISSANT = "croissant.json"
_RECIPE = "taxadiffusion"
_NUMBERS = {"seed": "sc:Integer", "guidance_scale": "sc:Float", "fraction": "sc:Float", "num_steps": "sc:Integer"}
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(frozen=True, slots=True)
class GeneratedSet:
    """The pictures that a folder's table lists, each one of ours; `left_out`: how many other files lie there."""

    folder: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    left_out: int

    @property
    def ranks(self) -> list[str]:
        return [rank for rank in RANKS if rank in self.columns]

    @property
    def table(self) -> bytes:
        """The table of these rows: a picture that is gone has none."""
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        return stream.getvalue().encode()


def is_generated(folder: Path) -> bool:
    """Whether a folder holds the table of `generate`."""
    table = folder / TABLE
    if not table.is_file():
        return False
    with table.open(encoding="utf-8", newline="", errors="replace") as stream:
        return {"file_name", "model_sha256", "digital_source_type"} <= set(next(csv.reader(stream), []))


def recipe_in(path: Path) -> Mapping[str, str]:
    """The recipe that a generated picture carries. Raises `DataError` for a file without one: it may be anyone's."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.load()
            recipe = json.loads(getattr(image, "text", {})[_RECIPE])
        if not isinstance(recipe, dict) or recipe.get("source") != SOURCE:
            raise ValueError("it is not marked as synthetic")
    except (OSError, SyntaxError, KeyError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: is no picture that `taxadiffusion generate` made ({type(error).__name__}); only those are shared"
        ) from error
    return recipe


def read_generated(folder: Path) -> GeneratedSet:
    """Read a folder and open each of its pictures. Raises `DataError` for one that is not ours, is missing, or outside
    of the folder."""
    table = folder / TABLE
    with table.open(encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
        columns = tuple(reader.fieldnames or ())
    if not rows:
        raise DataError(f"{table}: lists no picture; generate some first")
    listed = set()
    for number, row in enumerate(rows, 2):
        path = folder / row["file_name"]
        if Path(row["file_name"]).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{table}, line {number}: {row['file_name']!r} leads out of the folder")
        if not path.is_file():
            raise DataError(f"{table}, line {number}: {row['file_name']} is missing; run the same `generate` again")
        recipe = recipe_in(path)
        wrong = [key for key, value in recipe.items() if row.get(key, value) != value]
        if wrong:
            raise DataError(f"{table}, line {number}: {wrong[0]} is not what the picture itself says")
        listed.add(path.resolve())
    files = [path for path in folder.rglob("*") if path.is_file() and path != table]
    return GeneratedSet(folder, columns, tuple(rows), sum(path.resolve() not in listed for path in files))


def set_files(pictures: GeneratedSet, *, repo: str, licence: str, published: date) -> dict[str, bytes | Path]:
    """What is shared of a folder: pictures, table, card, Croissant."""
    files: dict[str, bytes | Path] = {row["file_name"]: pictures.folder / row["file_name"] for row in pictures.rows}
    described = croissant_of(pictures, repo=repo, licence=licence, published=published)
    return {
        **files,
        TABLE: pictures.table,
        CROISSANT: (json.dumps(described, indent=1, ensure_ascii=False) + "\n").encode(),
        "README.md": set_card(pictures, repo=repo, licence=licence).encode(),
    }


def set_card(pictures: GeneratedSet, *, repo: str, licence: str) -> str:
    """Markdown with the front matter that the hub reads: https://huggingface.co/docs/hub/datasets-cards."""
    number = len(pictures.rows)
    name = repo.rpartition("/")[2]
    front = {
        "license": licence,
        "pretty_name": name,
        "task_categories": ["text-to-image", "image-classification"],
        "tags": ["synthetic", "taxadiffusion", "species", "biodiversity", "taxonomy"],
        "size_categories": [next((size for limit, size in _SIZES if number < limit), "n>1M")],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "**"}]}],
    }
    recipe = {key: sorted({row.get(key, "") for row in pictures.rows}) for key in (*SHARED, "base")}
    taxa = {rank: len({row[rank] for row in pictures.rows if row[rank]}) for rank in pictures.ranks}
    return "\n".join([
        "---", yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip(), "---",
        f"# {name}", "",
        f"{number:,} synthetic pictures of taxa, made by [TaxaDiffusion](https://arxiv.org/abs/2506.01923). "
        "None of them is a photograph.", "",
        "| rank | names |", "|---|---:|", *(f"| {rank} | {count:,} |" for rank, count in taxa.items()), "",
        f"`{TABLE}` has a row for each picture: lineage, seed and recipe; each file carries the same, and the mark of "
        "the IPTC for pictures made by a trained model. A label is what was asked for, not what somebody saw.", "",
        "| recipe | |", "|---|---|",
        *(f"| {key} | {', '.join(values) or 'none'} |" for key, values in recipe.items()), "",
        "## What it must not be used for", "", *(f"* {what}" for what in NOT_FOR), "",
        f"`{CROISSANT}` describes the same for machines (https://mlcommons.org/croissant).", "",
    ])  # fmt: skip


def croissant_of(pictures: GeneratedSet, *, repo: str, licence: str, published: date) -> dict[str, Any]:
    """Croissant 1.0 (https://docs.mlcommons.org/croissant/docs/croissant-spec.html), with its vocabulary for
    responsible AI: a record a picture, its columns and its pixels."""
    address = f"https://huggingface.co/datasets/{repo}"
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": repo.rpartition("/")[2],
        "description": f"{len(pictures.rows)} synthetic pictures of taxa, made by TaxaDiffusion; no photographs.",
        "url": address,
        "license": licence,
        "keywords": ["synthetic", "species", "biodiversity", "taxonomy"],
        "citeAs": "TaxaDiffusion, https://arxiv.org/abs/2506.01923",
        "version": "1.0.0",
        "datePublished": published.isoformat(),
        "rai:dataCollection": "Made by a generative model conditioned on taxa; no organism was photographed.",
        "rai:dataLimitations": "; ".join(f"not {what}" for what in NOT_FOR),
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "table",
                "name": TABLE,
                "contentUrl": TABLE,
                "encodingFormat": "text/csv",
                "sha256": hashlib.sha256(pictures.table).hexdigest(),
            },
            {
                "@type": "cr:FileSet",
                "@id": "files",
                "name": "files",
                "description": "The pictures, PNG.",
                "encodingFormat": "image/png",
                "includes": "**/*.png",
            },
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "pictures",
                "name": "pictures",
                "description": "A picture: its file, what it was asked to show, and how it was made.",
                "key": {"@id": "pictures/file_name"},
                "field": [_field(column) for column in pictures.columns],
            },
            {
                "@type": "cr:RecordSet",
                "@id": "pixels",
                "name": "pixels",
                "description": "The content of each file.",
                "field": [_of_file("path", "sc:Text", "fullpath"), _of_file("image", "sc:ImageObject", "content")],
            },
        ],
    }


def _of_file(name: str, kind: str, what: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"pixels/{name}",
        "name": name,
        "dataType": kind,
        "source": {"fileSet": {"@id": "files"}, "extract": {"fileProperty": what}},
    }


def _field(column: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"pictures/{column}",
        "name": column,
        "dataType": _NUMBERS.get(column, "sc:Text"),
        "source": {"fileObject": {"@id": "table"}, "extract": {"column": column}},
    }


_CONTEXT: Mapping[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "equivalentProperty": "cr:equivalentProperty",
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{
        name: f"cr:{name}"
        for name in (
            "extract", "field", "fileProperty", "fileObject", "fileSet", "format", "includes", "isLiveDataset",
            "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace",
            "samplingRate", "separator", "source", "subField", "transform",
        )
    },
    "sc": "https://schema.org/",
}  # fmt: skip
"""The context that Croissant prescribes, word for word."""
