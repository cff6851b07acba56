"""File names and columns of a prepared data set."""

from __future__ import annotations

import pyarrow as pa

from taxadiffusion.images.similarity import LAYOUT_BYTES

SCHEMA_VERSION = 1
IMAGES = "images.parquet"
IMAGES_MAPPED = "images.arrow"
"""The same rows as `IMAGES`, uncompressed Arrow, for memory-mapped random access."""
TAXONOMY = "taxonomy.parquet"
REPORT = "report.json"
QUARANTINE = "quarantine.csv"
UNPACKED = "images"
"""Folder of the pictures that a source ships inside packages (zip, tar, HDF5)."""

SPLITS = ("train", "val", "test", "judge")
"""`judge` is for what names pictures and nothing else: no model learns from it, and no distance refers to it."""

_SOURCE_FIELDS = [
    pa.field("group", pa.string()),
    pa.field("box", pa.list_(pa.float32(), 4)),  # x, y, width, height in pixels
    pa.field("source", pa.string(), nullable=False),
    pa.field("row", pa.int64(), nullable=False),
    pa.field("source_id", pa.string()),
    pa.field("license", pa.string()),
    pa.field("rights_holder", pa.string()),
    pa.field("authorship", pa.string()),
    pa.field("qualifier", pa.string()),
    pa.field("source_taxon_id", pa.string()),  # absent from the sets of earlier versions
]

LISTED = pa.schema([
    pa.field("image", pa.string(), nullable=False),
    pa.field("member", pa.string()),
    pa.field("taxon", pa.int32(), nullable=False),  # provisional id
    pa.field("split", pa.string()),
    *_SOURCE_FIELDS,
])  # fmt: skip
"""A row as listed, before its picture is looked at."""

VERIFIED = pa.schema([
    pa.field("fault", pa.string()),  # why the picture cannot be used; the other columns are then null
    pa.field("sha256", pa.binary(32)),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("content_box", pa.list_(pa.int32(), 4)),
    pa.field("perceptual_hash", pa.uint64()),
    pa.field("colour_layout", pa.binary(LAYOUT_BYTES)),
    pa.field("damaged_metadata", pa.string()),  # "EXIF", "MPF"; the pixels are whole
    pa.field("num_bytes", pa.int64()),  # of the picture
    pa.field("file_size", pa.int64()),  # of the file, which may be a package
    pa.field("file_time_ns", pa.int64()),
])  # fmt: skip
"""What looking at a picture gave; size and time tell whether the file changed since."""

IMAGE_ROWS = pa.schema([
    pa.field("path", pa.string(), nullable=False),  # below the image root; below the prepared set where `unpacked`
    pa.field("unpacked", pa.bool_(), nullable=False),
    pa.field("sha256", pa.binary(32)),  # null where pictures were not verified
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("taxon_id", pa.int32(), nullable=False),
    pa.field("split", pa.string(), nullable=False),
    *_SOURCE_FIELDS,
    pa.field("content_box", pa.list_(pa.int32(), 4)),  # null: the whole picture
    pa.field("perceptual_hash", pa.uint64()),
    pa.field("num_bytes", pa.int64()),  # this and the next are absent from the sets of earlier versions
    pa.field("file_time_ns", pa.int64()),
])  # fmt: skip
"""A row of the prepared set. The last columns tell whether the file changed since; no hash depends on the time."""
