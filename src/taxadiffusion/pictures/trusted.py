"""For every taxon the finest rank to which its pictures may be trusted, from pictures that a judge has named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.files import whole
from taxadiffusion.metrics.conformal import threshold_at, trusted_depths
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sections import SettingsSection

TRUSTED = "trusted.json"
"""The file's name beside a model's."""

USUAL_ERROR = 0.1
"""At which trust is told of where no other error is asked for."""

_Counts = list[Annotated[int, Field(ge=0)]]
_Number = Annotated[int, Field(ge=1)]


class JudgedTaxon(SettingsSection):
    """Of one taxon, two halves of its pictures: how many there are, and how many are named right at each rank."""

    names: dict[Rank, str]
    num_scored: _Number
    scored: _Counts
    num_held_out: _Number
    held_out: _Counts

    @model_validator(mode="after")
    def _nested(self) -> JudgedTaxon:
        for number, counts in ((self.num_scored, self.scored), (self.num_held_out, self.held_out)):
            if sorted(counts, reverse=True) != counts or (counts and counts[0] > number):
                raise ValueError(f"{self.names}: counts must fall from coarse to fine, and not exceed {number}")
        return self


class Trusted(SettingsSection):
    """Judged pictures of one model, and what follows from them at any error."""

    format: Literal["taxadiffusion-trusted"] = "taxadiffusion-trusted"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    model_sha256: str
    judge: str
    """Who named the pictures, in words."""
    ranks: list[Rank]
    taxa: Annotated[list[JudgedTaxon], Field(min_length=1)]

    @model_validator(mode="after")
    def _of_these_ranks(self) -> Trusted:
        if any(len(one.scored) != len(self.ranks) or len(one.held_out) != len(self.ranks) for one in self.taxa):
            raise ValueError("every taxon needs a count for each rank")
        return self

    @classmethod
    def read(cls, path: Path) -> Trusted:
        """Raises `CheckpointError` for anything but what `write` wrote."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read: {error.strerror}; `taxadiffusion trust` writes it"
            ) from error
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the file"
            raise CheckpointError(f"{path}: {where}: {fault['msg']}; `taxadiffusion trust` writes it") from error

    def write(self, path: Path) -> None:
        try:
            with whole(path) as aside:
                aside.write_text(self.model_dump_json(by_alias=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}; name a file with --out") from error

    @classmethod
    def beside(cls, folder: Path, model_sha256: str) -> Trusted | None:
        """Of this model, where the folder or its `adapter` has such a file. Raises as `read`."""
        for path in (folder / TRUSTED, folder / "adapter" / TRUSTED):
            if path.is_file() and (found := cls.read(path)).model_sha256 == model_sha256:
                return found
        return None

    def depths(self, error: float) -> dict[Lineage, Rank | None]:
        """The finest rank at which each taxon's pictures are right at this error; None where at none.

        The promise is of the mean over taxa like these; see `metrics.conformal.threshold_at`.
        """
        scores = np.array([[count / one.num_scored for count in one.scored] for one in self.taxa])
        right = np.array([[count / one.num_held_out for count in one.held_out] for one in self.taxa])
        reached = trusted_depths(scores, threshold_at(scores, right, error))
        found: dict[Lineage, Rank | None] = {}
        for one, depth in zip(self.taxa, reached.tolist(), strict=True):
            lineage = Lineage.of(one.names)
            ranks = [rank for rank in self.ranks[:depth] if rank in lineage.ranks]
            found[lineage] = ranks[-1] if ranks else None
        return found


def judged_taxa(
    asked: Sequence[Lineage], named: Sequence[Lineage], known: frozenset[Lineage], ranks: Sequence[Rank]
) -> tuple[list[JudgedTaxon], Counter[str]]:
    """Pictures of taxa at the finest of `ranks`, and what each was named as; also those left out, by reason.

    known: the taxa that the judge can name. Of a taxon's pictures every other one scores, the rest are held out.
    """
    left_out: Counter[str] = Counter()
    by_taxon: dict[Lineage, list[list[bool]]] = {}
    for taxon, name in zip(asked, named, strict=True):
        if taxon.rank != ranks[-1]:
            left_out["is of a coarser rank"] += 1
        elif taxon not in known:
            left_out["is of a taxon that the judge does not know"] += 1
        else:
            by_taxon.setdefault(taxon, []).append(_right(taxon, name, ranks))
    found = []
    for taxon, pictures in by_taxon.items():
        if len(pictures) < 2:
            left_out["is the only one of its taxon"] += 1
            continue
        scored, held_out = np.array(pictures[::2]), np.array(pictures[1::2])
        found.append(
            JudgedTaxon(
                names=dict(taxon.names),
                num_scored=len(scored),
                scored=scored.sum(0).tolist(),
                num_held_out=len(held_out),
                held_out=held_out.sum(0).tolist(),
            )
        )
    return found, left_out


def _right(taxon: Lineage, name: Lineage, ranks: Sequence[Rank]) -> list[bool]:
    """At each rank: that it and all coarser ones are named right; a rank that the taxon lacks is as the one above."""
    agree = [taxon.get(rank) is None or taxon.get(rank) == name.get(rank) for rank in ranks]
    return np.logical_and.accumulate(agree).tolist()  # type: ignore[no-any-return]
