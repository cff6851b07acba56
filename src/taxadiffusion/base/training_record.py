"""What a base has seen: a small file in its folder says which pictures its pretraining learnt from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from taxadiffusion.base.weights import RECORD_FILE, read_json
from taxadiffusion.errors import CheckpointError
from taxadiffusion.names import Lineage


class Source(BaseModel):
    """Pictures that a base learnt from.

    name: of the data set, or what the pictures are. splits: those that were seen; () where there are none. num_images:
    of all of them. taxa: binomial, or name of the taxon, → how many of them show it; what is not named shows none.
    learnt: which parts learnt from them, and whether they were told names.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    splits: tuple[str, ...] = ()
    num_images: int = Field(ge=0)
    taxa: Mapping[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)
    learnt: str = ""


class TrainingRecord(BaseModel):
    """`training.json` of a base: everything that any of its parts learnt from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["taxadiffusion-training"] = "taxadiffusion-training"
    schema_version: Literal[1] = 1
    sources: tuple[Source, ...]

    def num_seen(self, taxon: Lineage) -> int:
        """How many pictures show it, in all sources."""
        return sum(source.taxa.get(taxon.label, 0) for source in self.sources)


def read_record(folder: Path) -> TrainingRecord | None:
    """The record in a base's folder; None where there is none. Raises `CheckpointError` for one that cannot be read."""
    path = folder / RECORD_FILE
    if not path.is_file():
        return None
    try:
        return TrainingRecord.model_validate(read_json(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise CheckpointError(
            f"{path}: {where}: {fault['msg']}; mend it, or remove it: what the base saw is then not recorded"
        ) from error


def write_record(record: TrainingRecord, folder: Path) -> None:
    """Write it into a base's folder."""
    document = json.dumps(record.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (folder / RECORD_FILE).write_text(document + "\n", encoding="utf-8")


def what_was_seen(record: TrainingRecord | None, taxa: tuple[Lineage, ...]) -> str:
    """Did the base see these taxa, in a sentence."""
    if record is None:
        return "What the base saw is not recorded: it may have seen photographs of these taxa, withheld ones too."
    seen = {taxon.label: record.num_seen(taxon) for taxon in taxa}
    named = ", ".join(f"{number:,} of {label}" for label, number in seen.items() if number)
    if not named:
        return "By its record the base saw no picture of these taxa."
    sources = [source for source in record.sources if any(source.taxa.get(label) for label in seen)]
    where = "; ".join(map(_words, sources))
    unseen = ", ".join(label for label, number in seen.items() if not number)
    none_of = f"; none of {unseen}" if unseen else ""
    return (
        f"The base saw pictures of these taxa before anything was withheld: {named}{none_of} ({where}). How they look "
        "was known to it: for a base that never saw them these figures may be worse."
    )


def _words(source: Source) -> str:
    splits = f" ({', '.join(source.splits)})" if source.splits else ""
    return f"{source.name}{splits}: {source.learnt}" if source.learnt else f"{source.name}{splits}"
