"""The pictures that are kept: each once for its recipe, up to a bound; the longest unseen leave first."""

from __future__ import annotations

import io
import json
import os
import re
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from csv import DictWriter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from taxadiffusion.errors import CheckpointError, DataError, TaxaDiffusionError
from taxadiffusion.files import locked
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.web.ask import ask_of
from taxadiffusion.web.limits import Limits

_NAME = re.compile(r"(?P<stem>.+)-(?P<id>[0-9a-f]{10})\.png")
_LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture in the store. `id`: the hash of its recipe, as its file's name ends."""

    id: str
    path: Path
    recipe: dict[str, str]
    lineage: Lineage
    num_bytes: int
    asked: int = 0
    """Grows with each picture that is asked for: what was asked for last has the largest."""

    @property
    def is_mix(self) -> bool:
        return bool(self.recipe.get("towards"))

    @property
    def settings(self) -> tuple[str, ...]:
        """What pictures of one strip share."""
        keys = ("seed", "guidance_scale", "guidance_rank", "guidance_interval", "num_steps", "scheduler", "engine")
        return tuple(self.recipe.get(key, "") for key in keys)


class Store:
    """A folder of PNGs that carry their recipes, and an index of those of one model. For one process at a time."""

    def __init__(self, folder: Path, ranks: tuple[Rank, ...], model_sha256: str, limits: Limits) -> None:
        """Raises `DataError` for a folder that cannot be written, `CheckpointError` where another server uses it."""
        self._folder, self._ranks, self._limits = folder, ranks, limits
        self._kept: OrderedDict[str, Kept] = OrderedDict()  # seen last comes last
        self._by_taxon: dict[Lineage, dict[str, Kept]] = {}
        self._changes: dict[Lineage, int] = {}
        self._guard = threading.RLock()
        self.version = 0
        """Another number whenever a picture comes or goes."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
            paths = sorted(folder.glob("*.png"), key=lambda path: path.stat().st_mtime_ns)
        except OSError as error:
            raise DataError(f"{folder}: pictures cannot be kept there: {error.strerror}") from error
        if not locked(self._lock):
            raise CheckpointError(f"{folder}: another server keeps its pictures there; choose another --store")
        for path in paths:
            recipe = _recipe_in(path)
            if recipe.get("model_sha256") == model_sha256 and _can_be_asked_for(recipe, ranks):
                with suppress(FileNotFoundError):  # taken away just now
                    self.add(path, recipe)

    def close(self) -> None:
        """Let another server have the folder."""
        os.close(self._lock)

    def add(self, path: Path, recipe: dict[str, str]) -> str | None:
        """The id of the picture; None for a file that is not named as ours are. Raises `OSError` where it is gone."""
        named = _NAME.fullmatch(path.name)
        if named is None:
            return None
        lineage = Lineage.of({rank: recipe.get(rank, "") for rank in self._ranks})
        with self._guard:
            kept = Kept(named["id"], path, recipe, lineage, path.stat().st_size, self.version)
            self._kept[kept.id] = kept
            self._kept.move_to_end(kept.id)
            self._by_taxon.setdefault(lineage, {})[kept.id] = kept
            self._changed(lineage)
        return kept.id

    def changes(self, lineage: Lineage) -> int:
        """Another number whenever a picture of the taxon, or of one that it lies in, comes or goes."""
        return sum(self._changes.get(part, 0) for part in _chain(lineage))

    def _changed(self, lineage: Lineage) -> None:
        self.version += 1
        self._changes[lineage] = self._changes.get(lineage, 0) + 1

    def get(self, picture: str) -> Kept | None:
        """The picture of this id; None where none is kept. It counts as looked at."""
        with self._guard:
            if picture in self._kept:
                self._kept.move_to_end(picture)
            return self._kept.get(picture)

    def shrink(self, in_use: frozenset[str] = frozenset()) -> int:
        """Take away what is beyond the bounds, the longest unseen first; how many.

        in_use: stay in any case, and so does what the system does not let go.
        """
        with self._guard:
            num_bytes, gone = sum(kept.num_bytes for kept in self._kept.values()), 0
            for kept in list(self._kept.values()):
                if len(self._kept) <= self._limits.store_pictures and num_bytes <= self._limits.store_bytes:
                    break
                if kept.id not in in_use and _taken_away(kept.path):
                    del self._kept[kept.id]
                    del self._by_taxon[kept.lineage][kept.id]
                    self._changed(kept.lineage)
                    num_bytes, gone = num_bytes - kept.num_bytes, gone + 1
            return gone

    def of_taxon(self, lineage: Lineage) -> list[Kept]:
        """Its own pictures, no mixes, asked for last first."""
        return [kept for kept in self._of([lineage]) if not kept.is_mix]

    def strip(self, lineage: Lineage) -> list[Kept | None]:
        """Of each of its ranks a picture, all with one seed and the same settings; None where there is none.

        Of several such rows the one with the most pictures, then the one asked for last.
        """
        chain = _chain(lineage)
        rows: dict[tuple[str, ...], dict[Lineage, Kept]] = {}
        for kept in self._of(chain):
            if not kept.is_mix:
                rows.setdefault(kept.settings, {}).setdefault(kept.lineage, kept)
        best = max(rows.values(), key=len, default={})
        return [best.get(part) for part in chain]

    def latest(self, number: int) -> list[Kept]:
        """The pictures asked for last, first."""
        return self._all()[::-1][:number]

    def newest(self) -> dict[Lineage, Kept]:
        """Of each taxon that was drawn the picture, no mix, that was asked for last."""
        return {kept.lineage: kept for kept in self._all() if not kept.is_mix}

    def _of(self, taxa: Sequence[Lineage]) -> list[Kept]:
        """Asked for last first."""
        with self._guard:
            found = [kept for taxon in taxa for kept in self._by_taxon.get(taxon, {}).values()]
        return sorted(found, key=lambda kept: -kept.asked)

    def _all(self) -> list[Kept]:
        with self._guard:
            return sorted(self._kept.values(), key=lambda kept: kept.asked)


def _chain(lineage: Lineage) -> list[Lineage]:
    """Its ancestors and itself, coarse to fine."""
    return [lineage.truncated(rank) for rank in lineage.ranks]


def archive(pictures: Sequence[Kept]) -> bytes:
    """A zip of the pictures and `metadata.csv`, a row for each: what `prepare` and `evaluate` read."""
    columns = list(dict.fromkeys(key for kept in pictures for key in kept.recipe))
    table = io.StringIO(newline="")
    rows = DictWriter(table, ["file_name", *columns])
    rows.writeheader()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as bundle:
        for kept in pictures:
            bundle.writestr(kept.path.name, kept.path.read_bytes())
            rows.writerow({"file_name": kept.path.name, **kept.recipe})
        bundle.writestr("metadata.csv", table.getvalue())
    return packed.getvalue()


def _taken_away(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def _recipe_in(path: Path) -> dict[str, str]:
    """As `pictures.png.save_picture` wrote it; {} of a file that holds none."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            recipe = json.loads(getattr(image, "text", {}).get("taxadiffusion", "{}"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return {}
    whole = isinstance(recipe, dict) and all(isinstance(value, str) for value in recipe.values())
    return recipe if whole else {}


def _can_be_asked_for(recipe: dict[str, str], ranks: tuple[Rank, ...]) -> bool:
    """Whether the recipe says all that its picture's page tells; one that was tampered with may not."""
    try:
        ask_of(recipe, ranks)
    except (KeyError, ValueError, OverflowError, TaxaDiffusionError):
        return False
    return bool(recipe.get("scientific_name"))
