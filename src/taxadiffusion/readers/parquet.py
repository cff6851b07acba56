"""Parquet: the text of its rows, and pictures that lie in its cells (as the Hugging Face hub stores them)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError
from taxadiffusion.readers import bounded

_BATCH_ROWS = 4096
_LONG_CELL_CHARS = 1 << 16
_ROWS_WITH_LONG_CELLS = 16
_PICTURES_AT_ONCE = 8
_VALUES_PER_ROW = 64
_FREE_VALUES = 1_000_000
_PICTURE_NAMES = ("image", "img", "picture", "photo", "jpg", "bytes")


def open_parquet(path: Path, **options: Any) -> Any:
    """The file, its sizes within bounds. Raises `DataError`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path, memory_map=True, **options)
        _check_sizes(path, file.metadata)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {error}") from error
    return file


def _check_sizes(path: Path, metadata: Any) -> None:
    """What the file's own directory says, before a page is unpacked."""
    for group in (metadata.row_group(i) for i in range(metadata.num_row_groups)):
        for column in (group.column(i) for i in range(group.num_columns)):
            packed, unpacked = column.total_compressed_size, column.total_uncompressed_size
            if unpacked > max(bounded.FREE_BYTES, bounded.MAX_RATIO * packed):
                reason = (
                    f"column {column.path_in_schema!r} unpacks to {unpacked} bytes, more than {bounded.MAX_RATIO} times"
                )
                raise bounded.BoundError(path, f"{reason} its size")
            if column.num_values > _VALUES_PER_ROW * group.num_rows + _FREE_VALUES:
                reason = f"column {column.path_in_schema!r} has more than {_VALUES_PER_ROW} values a row"
                raise bounded.BoundError(path, reason)


def text_columns(schema: Any) -> list[str]:
    """The columns whose values are texts or numbers; that of the pictures stands for their paths."""
    return [field.name for field in schema if _leaf(field) is not None]


def _leaf(field: Any) -> str | None:
    """What is read of a column: itself, `image.path` of a picture, None where there is no text in it."""
    import pyarrow as pa

    if _is_picture(field.type):
        has_path = pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0
        return f"{field.name}.path" if has_path else None
    return None if _is_binary(field.type) else field.name


def _is_binary(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_picture(kind: Any) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_struct(kind) and (at := kind.get_field_index("bytes")) >= 0 and _is_binary(kind.field(at).type)
    )


def picture_column(schema: Any) -> str | None:
    """The column that holds pictures: a struct with `bytes`, or bytes under a usual name; None without."""
    found = [field.name for field in schema if _is_picture(field.type)]
    found += [field.name for field in schema if _is_binary(field.type) and field.name.lower() in _PICTURE_NAMES]
    return min(found, key=lambda name: (*_PICTURE_NAMES, name.lower()).index(name.lower()), default=None)


def held_pictures(path: Path) -> str | None:
    """The column in which a Parquet file holds pictures; None for any other file."""
    return picture_column(open_parquet(path).schema_arrow) if path.suffix.lower() == ".parquet" else None


def rows_as_text(path: Path) -> Iterator[dict[str, str]]:
    """Every row, column → text. Raises `DataError` for damage, and for a cell of more than `MAX_LINE_CHARS`."""
    import pyarrow as pa

    schema = open_parquet(path).schema_arrow
    texts = [f.name for f in schema if pa.types.is_string(f.type) or pa.types.is_large_string(f.type)]
    wanted = [leaf for field in schema if (leaf := _leaf(field)) is not None]
    labels = class_labels(schema)
    number = 0
    try:
        for batch in open_parquet(path, read_dictionary=texts).iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            at_once = _BATCH_ROWS if _longest(path, batch) < _LONG_CELL_CHARS else _ROWS_WITH_LONG_CELLS
            for start in range(0, len(batch), at_once):
                for values in batch.slice(start, at_once).to_pylist():
                    number += 1
                    yield {key: _cell_text(value, labels.get(key)) for key, value in values.items()}
    except pa.ArrowException as error:
        raise DataError(f"{path}: damaged after row {number}: {error}") from error


def _longest(path: Path, batch: Any) -> int:
    """Bytes of the longest text; repeated texts are kept once by the file, and would not be by us."""
    import pyarrow as pa
    import pyarrow.compute as pc

    longest = 0
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
            length = pc.max(pc.binary_length(values)).as_py() or 0
            if length > bounded.MAX_LINE_CHARS:
                reason = f"a cell of column {name!r} has {length} bytes, more than {bounded.MAX_LINE_CHARS}"
                raise bounded.BoundError(path, reason)
            longest = max(longest, length)
    return longest


def class_labels(schema: Any) -> dict[str, list[str]]:
    """Columns whose numbers stand for names (a hub data set's ClassLabel) → the names, by number."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        named = {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}
    return {
        name: [str(label) for label in feature["names"]]
        for name, feature in named.items()
        if feature.get("_type") == "ClassLabel" and isinstance(feature.get("names"), list)
    }


def _cell_text(value: Any, labels: list[str] | None) -> str:
    if labels is not None and isinstance(value, int):
        return labels[value] if 0 <= value < len(labels) else ""
    if isinstance(value, dict) and set(value) == {"path"}:
        value = value["path"]
    return as_text(value)


def as_text(value: Any) -> str:
    """A cell as text: "" for nothing, JSON for lists and objects."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def picture_member(index: int, path: str) -> str:
    """The entry's name of the picture in row `index` (from 0), whose own path is kept at the end."""
    name = re.sub(r"[^\w.-]", "_", path.rsplit("/", 1)[-1])[-100:]
    return f"{index:08d}-{name}" if name else f"{index:08d}.jpg"


def read_picture(file: Path, member: str, stamp: tuple[int, int]) -> bytes:
    """The bytes of a picture by the name that `picture_member` gave it; `stamp` tells states of the file apart.

    Raises `FileNotFoundError` where there is none, `OSError` for damage or an oversized one.
    """
    import pyarrow as pa

    index = int(member[:8]) if re.match(r"\d{8}[-.]", member) else -1
    try:
        data = _cursor(str(file), stamp).at(index)
    except (pa.ArrowException, DataError) as error:
        raise OSError(f"damaged Parquet: {error}") from error
    if data is None:
        raise FileNotFoundError(f"no picture in row {index + 1}")
    if len(data) > bounded.MAX_MEMBER_BYTES:
        raise OSError(f"the picture has more than {bounded.MAX_MEMBER_BYTES} bytes")
    return data


class _Cursor:
    """Pictures in the order of the rows, a few in memory; going back starts their row group anew."""

    def __init__(self, path: Path) -> None:
        self._file = open_parquet(path)
        self._column = picture_column(self._file.schema_arrow)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.metadata.num_row_groups)]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes))]
        self._num_rows = sum(sizes)
        self._group = -1
        self._batches: Iterator[Any] = iter(())
        self._first = 0
        self._held: list[Any] = []

    def at(self, index: int) -> bytes | None:
        if self._column is None or not 0 <= index < self._num_rows:
            return None
        group = max(i for i, start in enumerate(self._starts) if start <= index)
        if group != self._group or index < self._first:
            self._group, self._first, self._held = group, self._starts[group], []
            leaf = self._file.schema_arrow.field(self._column).type
            column = f"{self._column}.bytes" if _is_picture(leaf) else self._column
            self._batches = self._file.iter_batches(_PICTURES_AT_ONCE, row_groups=[group], columns=[column])
        while index >= self._first + len(self._held):
            self._first += len(self._held)
            self._held = next(self._batches).column(0).to_pylist()
        value = self._held[index - self._first]
        data: bytes | None = value["bytes"] if isinstance(value, dict) else value
        return data


@lru_cache(maxsize=4)
def _cursor(path: str, _: tuple[int, int]) -> _Cursor:
    return _Cursor(Path(path))
