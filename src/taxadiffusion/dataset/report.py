"""What `prepare` is asked and what it tells: settings, progress while it works, and the report it leaves."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from taxadiffusion.dataset.columns import REPORT, SCHEMA_VERSION
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Rank


@dataclass(frozen=True)
class PrepareSettings:
    """What `prepare` is asked for.

    `format` (detected without) and its `options` choose the reader; `ranks` the ranks to keep; `val_fraction` of the
    training groups of each taxon become validation; `limit` takes the first rows only; `fix` is a file of repairs;
    `catalogue` is an archive of the Catalogue of Life, whose taxonID every accepted name gets; `verify=False` looks at
    no picture; `follow_links` uses what links lead to outside of the image folder.
    """

    format: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    ranks: str | Sequence[Rank] | None = None
    val_fraction: float = 0.0
    max_bad_fraction: float = 0.01
    limit: int | None = None
    fix: Path | None = None
    allow_contradictions: bool = False
    verify: bool = True
    follow_links: bool = False
    catalogue: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise SettingsError(f"val_fraction must be at least 0 and below 1, got {self.val_fraction}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise SettingsError(f"max_bad_fraction must lie between 0 and 1, got {self.max_bad_fraction}")
        if self.limit is not None and self.limit < 1:
            raise SettingsError(f"limit must be at least 1, got {self.limit}")


@dataclass(frozen=True, slots=True)
class PrepareProgress:
    """`done` of `total` rows (None: not known yet) of a phase: "list", "verify" or "write"."""

    phase: str
    done: int
    total: int | None


@dataclass
class PrepareReport:
    """`rows` = `images` + `quarantined` + `repeated_rows` + `duplicate_images`."""

    source: str
    root: str
    format: str
    ranks: list[str]
    settings: dict[str, Any]
    """What was asked for; the same settings over the same rows give the same data set."""
    listing_hash: str
    rows: int = 0
    images: int = 0
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    """Quarantined rows and files by reason."""
    repeated_rows: int = 0
    """Rows that repeat an earlier row's image, box and taxon."""
    duplicate_images: int = 0
    """Files whose bytes equal an earlier file's."""
    images_per_split: dict[str, int] = field(default_factory=dict)
    taxa_per_rank: dict[str, int] = field(default_factory=dict)
    images_at_rank: dict[str, int] = field(default_factory=dict)
    """Images by the finest rank they are identified to."""
    images_with_content_box: int = 0
    """Pictures with black bands or a time stamp that `load_image` leaves out."""
    damaged_metadata: dict[str, int] = field(default_factory=dict)
    """Pictures by the kind of metadata ("EXIF", "MPF") that is damaged and was passed over; their pixels are whole."""
    damaged_metadata_examples: list[str] = field(default_factory=list)
    groups_across_splits: int = 0
    near_duplicates_across_splits: int = 0
    near_duplicate_examples: list[list[str]] = field(default_factory=list)
    reader_counts: dict[str, int] = field(default_factory=dict)
    """What the reader repaired or noticed."""
    fixes_applied: dict[str, int] = field(default_factory=dict)
    contradictions_allowed: int = 0
    taxonomy_hash: str = ""
    content_hash: str = ""
    schema: int = SCHEMA_VERSION

    def write(self, folder: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=1, ensure_ascii=False) + "\n"
        (folder / REPORT).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> PrepareReport:
        """Raises `DataError` when `folder` holds no report of this schema."""
        path = folder / REPORT
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(value, dict) or value.get("schema") != SCHEMA_VERSION:
                raise ValueError(f"expected schema {SCHEMA_VERSION}")
            return cls(**value)
        except FileNotFoundError:
            raise DataError(f"{folder}: not a prepared data set (no {REPORT}); run: taxadiffusion prepare") from None
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not the report of a prepared data set: {error}; run prepare again") from error
