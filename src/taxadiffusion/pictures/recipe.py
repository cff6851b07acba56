"""What all pictures of a folder share: a folder holds one recipe, so that its images are those of one method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from taxadiffusion.errors import DataError, SettingsError

RecipeRow = Mapping[str, str]
"""A picture's recipe, or its row of `metadata.csv`: name of a column → text."""

TABLE = "metadata.csv"
"""A folder's table of its pictures."""

SHARED = (
    "guidance_scale", "guidance_rank", "guidance_interval", "guidance_rank_scales", "context_scale", "num_steps",
    "scheduler", "engine", "model_sha256", "base_sha256", "weaker_sha256", "software",
)  # fmt: skip
"""Columns that are equal for all pictures of a folder; the others say what a picture shows, and its seed."""

_NUM_SHOWN = 16  # characters of a value


def require_one_recipe(folder: Path, there: Iterable[RecipeRow], asked: Iterable[RecipeRow]) -> None:
    """Raises `SettingsError` where `asked` differs from what lies in the folder, or in itself, saying in what.

    A column that a row lacks, as one of an older version may, agrees with everything.
    """
    old, new = _values(there), _values(asked)
    differing = [key for key in SHARED if old[key] and new[key] and set(old[key]) != set(new[key])]
    wrong = [f"{key}: {_words(old[key])} there, {_words(new[key])} now" for key in differing]
    if wrong:
        raise SettingsError(
            f"{folder}: its pictures have another recipe, and a folder holds one:\n  " + "\n  ".join(wrong) + "\n"
            "Draw into another folder (--out), or with the settings of this one"
        )
    mixed = [f"{key}: {_words(new[key])}" for key in SHARED if len(new[key]) > 1]
    if mixed:
        raise SettingsError(f"{folder}: pictures of several recipes are asked for ({'; '.join(mixed)}); ask for one")


def refuse_mixed(table: Path, rows: Iterable[RecipeRow]) -> None:
    """Raises `DataError` for a table of pictures of several recipes: their scores would be of no method."""
    values = _values(rows)
    mixed = [f"{key}: {_words(values[key], counted=True)}" for key in SHARED if len(values[key]) > 1]
    if mixed:
        raise DataError(
            f"{table}: pictures of several recipes lie in this folder:\n  " + "\n  ".join(mixed) + "\n"
            "Draw each into a folder of its own and evaluate them as NAME=FOLDER"
        )


def _values(rows: Iterable[RecipeRow]) -> dict[str, Counter[str]]:
    """Column → its values with their numbers."""
    found: dict[str, Counter[str]] = {key: Counter() for key in SHARED}
    for row in rows:
        for key in SHARED:
            value = row.get(key)
            if value is not None:
                found[key][value] += 1
    return found


def _words(values: Counter[str], *, counted: bool = False) -> str:
    shown = {value: value if len(value) <= _NUM_SHOWN or " " in value else f"{value[:_NUM_SHOWN]}…" for value in values}
    return ", ".join(
        f"{shown[value] or 'none'} ({number} pictures)" if counted else shown[value] or "none"
        for value, number in sorted(values.items())
    )
