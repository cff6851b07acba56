"""Files that claim more than they hold, or hold more than they weigh: refused by name, with little memory."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.readers import Rejected, bounded, open_reader
from taxadiffusion.readers.exported import exported_ranks
from taxadiffusion.readers.json_stream import stream_arrays
from taxadiffusion.readers.package import read_member
from taxadiffusion.readers.parquet import picture_member, rows_as_text
from taxadiffusion.readers.table import Table

MIB = 1 << 20
META = (
    '<archive><core fieldsTerminatedBy="\\t" ignoreHeaderLines="1" rowType="x/Occurrence"><files><location>'
    'occurrence.txt</location></files><id index="0"/><field index="1" term="x/scientificName"/></core></archive>'
)
OCCURRENCES = "id\tscientificName\n1\tApis mellifera\n"


@contextmanager
def little_memory(num_bytes: int = 24 * MIB) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < num_bytes, f"{peak / MIB:.0f} MiB"


def sparse_tar(path: Path, name: str, claim: int) -> None:
    """GNU's old form: a header that claims `claim` bytes over half a kilobyte of data."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.size = tarfile.GNUTYPE_SPARSE, 512
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    for at, number in ((386, claim - 512), (398, 512), (483, claim)):
        header[at : at + 12] = b"%011o\0" % number
    header[482] = 0
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    path.write_bytes(bytes(header) + b"x" * 512 + bytes(10_240))


def tar(path: Path, entries: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in entries.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def zipped(path: Path, entries: dict[str, Callable[[Any], None] | str | bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in entries.items():
            if callable(content):
                with archive.open(name, "w") as file:
                    content(file)
            else:
                archive.writestr(name, content)
    return path


def repeated(piece: bytes, num_bytes: int, start: bytes = b"") -> Callable[[Any], None]:
    def write(file: Any) -> None:
        file.write(start)
        for _ in range(num_bytes // MIB):
            file.write(piece * (MIB // len(piece)))

    return write


@pytest.mark.parametrize("name", ["a.json", "a.jpg", "a.txt"])
def test_sparse_entries_are_refused_by_every_reader_of_tar_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "shard-000000.tar"
    sparse_tar(path, name, 3 << 30)
    assert path.stat().st_size < 12_000
    with little_memory(), pytest.raises(DataError, match="sparse"):
        exported_ranks(path)
    with little_memory(), pytest.raises(DataError, match="sparse"):
        list(open_reader(path))
    with little_memory(), pytest.raises(DataError, match="sparse"):
        open_reader(path, "darwincore")
    with little_memory(), pytest.raises(OSError, match="sparse"):
        read_member(path, name)


def test_a_header_that_claims_gigabytes_gets_no_room(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = tarfile.XHDTYPE, 6 << 30
    path = tmp_path / "shard-000000.tar"
    path.write_bytes(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10_240))
    with little_memory(), pytest.raises(DataError, match="shard-000000"):
        list(open_reader(path, "treeoflife"))


def test_a_packed_header_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 6 << 30
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(10_240)))
    with little_memory(), pytest.raises(DataError, match=rf"more than {bounded.MAX_MEMBER_BYTES}"):
        open_reader(path, "darwincore")


def test_one_entry_may_not_be_larger_than_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_MEMBER_BYTES", 1000)
    tar(tmp_path / "a.tar", {"a.jpg": bytes(1001), "b.jpg": bytes(1000)})
    zipped(tmp_path / "a.zip", {"a.jpg": bytes(1001), "b.jpg": bytes(1000)})
    for package in ("a.tar", "a.zip"):
        assert len(read_member(tmp_path / package, "b.jpg")) == 1000
        with pytest.raises(OSError, match="more than 1000"):
            read_member(tmp_path / package, "a.jpg")


def test_the_number_of_entries_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = {f"{i}.jpg": b"x" for i in range(6)}
    tar(tmp_path / "six.tar", entries)
    zipped(tmp_path / "six.zip", {**entries})
    monkeypatch.setattr(bounded, "MAX_MEMBERS", 5)
    for package in ("six.tar", "six.zip"):
        with pytest.raises(OSError, match="more than 5"):
            read_member(tmp_path / package, "0.jpg")


def test_packed_headers_weigh_nothing_so_few_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar(tmp_path / "six.tar.gz", {f"{i}.txt": b"" for i in range(6)}, "w:gz")
    monkeypatch.setattr("taxadiffusion.readers.darwincore_archive._MAX_FILES", 5)
    with pytest.raises(DataError, match="more than 5 entries"):
        open_reader(tmp_path / "six.tar.gz", "darwincore")
    (tmp_path / "six.tar.gz").rename(tmp_path / "six.tar")
    with pytest.raises(OSError, match="damaged tar"):
        read_member(tmp_path / "six.tar", "0.txt")


def test_meta_xml_is_bounded(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"meta.xml": repeated(b" ", 48 * MIB, b"<a>"), "occurrence.txt": OCCURRENCES})
    with little_memory(), pytest.raises(DataError, match=rf"meta\.xml has more than {bounded.MAX_TEXT_BYTES} bytes"):
        open_reader(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("start", ['<!DOCTYPE archive [<!ENTITY t "x">]>', "<!doctype archive>"])
def test_no_encoding_hides_a_document_type(tmp_path: Path, encoding: str, start: str) -> None:
    stated = encoding.removesuffix("-sig")
    document = f'<?xml version="1.0" encoding="{stated}"?>{start}{META}'.encode(encoding)
    path = zipped(tmp_path / "a.zip", {"meta.xml": document, "occurrence.txt": OCCURRENCES})
    with pytest.raises(DataError, match="document type or defines entities"):
        open_reader(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_honest_descriptors_are_read_in_every_encoding(tmp_path: Path, encoding: str) -> None:
    document = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>{META}'.encode(encoding)
    path = zipped(tmp_path / "a.zip", {"meta.xml": document, "occurrence.txt": OCCURRENCES})
    assert len(list(open_reader(path))) == 1


def test_an_endless_line_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_LINE_CHARS", MIB)
    monkeypatch.setattr(bounded, "FREE_BYTES", 48 * MIB)
    endless = repeated(b"A", 32 * MIB, OCCURRENCES.encode() + b"2\t")
    path = zipped(tmp_path / "a.zip", {"meta.xml": META, "occurrence.txt": endless})
    with little_memory():
        record, rejected = open_reader(path)
    assert isinstance(rejected, Rejected)
    assert rejected.reason == f"the line has more than {MIB} characters"
    assert not isinstance(record, Rejected)


def test_an_endless_quoted_cell_is_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "MAX_LINE_CHARS", MIB)
    (tmp_path / "metadata.csv").write_text('file_name,family\na.jpg,"' + ("x" * 9_999 + "\n") * 1_000)
    with little_memory():
        count = sum(isinstance(item, Rejected) for item in open_reader(tmp_path))
    assert count == 1_000


@pytest.mark.parametrize("kind", ["zip", "gz", "tar.gz", "tar.bz2", "tar.xz"])
def test_what_unpacks_to_too_many_times_its_size_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(bounded, "FREE_BYTES", MIB)
    row = b"1\tApis mellifera\t" + b"x" * 20_000 + b"\n"
    data = b"id\tscientificName\tnote\n" + row * 500
    if kind == "zip":
        zipped(tmp_path / "a.zip", {"occurrence.txt": data})
    elif kind == "gz":
        (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"file_name,family,note\n" + row.replace(b"\t", b",") * 500))
    else:
        tar(tmp_path / f"a.{kind}", {"occurrence.txt": data}, f"w:{kind[4:]}")
    (path,) = tmp_path.iterdir()
    with little_memory(), pytest.raises(DataError, match="more than 250 times its size"):
        for _ in open_reader(path, "folder" if kind == "gz" else "darwincore"):
            pass


def test_ordinary_archives_stay_far_from_the_bounds(tmp_path: Path) -> None:
    rows = "".join(f"{i}\tApis mellifera\n" for i in range(500))
    for kind in ("tar", "tar.gz", "tar.bz2", "tar.xz"):
        mode = "w" if kind == "tar" else f"w:{kind[4:]}"
        tar(tmp_path / f"a.{kind}", {"meta.xml": META.encode(), "occurrence.txt": b"id\tname\n" + rows.encode()}, mode)
        assert len(list(open_reader(tmp_path / f"a.{kind}", "darwincore"))) == 500


def test_a_caption_that_is_too_long_is_a_bad_sample(tmp_path: Path) -> None:
    good = {"a.jpg": b"J", "a.sci.txt": b"Apis mellifera"}
    tar(tmp_path / "shard-000000.tar", {**good, "b.jpg": b"J", "b.sci.txt": b" " * (MIB + 1)})
    first, second = open_reader(tmp_path / "shard-000000.tar")
    assert not isinstance(first, Rejected)
    assert isinstance(second, Rejected)
    assert f"more than {bounded.MAX_TEXT_BYTES}" in second.reason


def test_repeated_texts_of_parquet_are_not_multiplied(tmp_path: Path) -> None:
    column = pa.array(["A" * (5 * MIB)]).take(pa.array([0] * 2)).dictionary_encode()
    indices = pa.array([0] * 4000, pa.int32())
    bomb = pa.DictionaryArray.from_arrays(indices, column.dictionary)
    path = tmp_path / "metadata.parquet"
    pq.write_table(pa.table({"file_name": bomb}), path)
    assert path.stat().st_size < MIB
    before = pa.default_memory_pool().max_memory()
    with little_memory(), pytest.raises(DataError, match=rf"more than {bounded.MAX_LINE_CHARS}"):
        list(rows_as_text(path))
    assert pa.default_memory_pool().max_memory() - before < 128 * MIB


def test_parquet_columns_state_bounded_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"file_name": ["A" * 100_000]}), path, use_dictionary=False, compression="zstd")
    assert len(list(Table(path))) == 1
    monkeypatch.setattr(bounded, "FREE_BYTES", 1000)
    with pytest.raises(DataError, match="more than 250 times its size"):
        Table(path)


def test_hdf5_entries_stay_inside_their_file_and_its_bounds(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="needs the extra [data]")
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["secret"] = [1, 2]
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file["link"] = h5py.ExternalLink("other.hdf5", "secret")
        file["group"] = h5py.ExternalLink("other.hdf5", "/")
        file.create_dataset("wide", (1,), "u1", maxshape=(None,), chunks=(1 << 29,))
        file.create_dataset("long", (1 << 29,), "u1", chunks=(1 << 16,), compression="gzip")
        file["words"] = ["a", "b"]
        layout = h5py.VirtualLayout((2,), "i8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.hdf5"), "secret", (2,))
        file.create_virtual_dataset("virtual", layout)
        file["good"] = bytearray(b"JPEG")
    for member in ("link", "group/secret", "wide", "long", "words", "virtual"):
        with little_memory(), pytest.raises(OSError, match=r"refused|more than"):
            read_member(tmp_path / "a.hdf5", member)
    assert read_member(tmp_path / "a.hdf5", "good") == b"JPEG"


def test_json_elements_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxadiffusion.readers.json_stream._MAX_ELEMENT_BYTES", MIB // 8)
    path = tmp_path / "train.json"
    for bomb in ('{"a": "' + "x" * MIB + '"}', "[" + "[]," * (MIB // 4), "[" * MIB, '"' + "x" * MIB):
        path.write_text('{"images": [1, ' + bomb)
        elements = stream_arrays(path, ("images",))
        assert next(elements) == ("images", 1)
        with pytest.raises(DataError, match=r"train\.json: .*more than \d+"):
            next(elements)


def test_json_of_other_keys_may_be_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxadiffusion.readers.json_stream._MAX_ELEMENT_BYTES", MIB // 8)
    path = tmp_path / "train.json"
    path.write_text(json.dumps({"annotations": [{"id": i} for i in range(30_000)], "images": [{"id": 1}]}))
    assert list(stream_arrays(path, ("images",))) == [("images", {"id": 1})]


@pytest.mark.parametrize(("text", "byte"), [('{"images": [1, 2}', 16), ('{"images": [1]} x', 16), ('{"images": [', 12)])
@pytest.mark.parametrize("filler", [0, 150_000])
def test_damaged_json_is_named_by_its_byte(tmp_path: Path, text: str, byte: int, filler: int) -> None:
    path = tmp_path / "train.json"
    before = '{"info": "' + "x" * filler + '", '
    path.write_text(before + text[1:])
    with pytest.raises(DataError, match=rf"near byte {len(before) + byte - 1}:"):
        list(stream_arrays(path, ("images",)))


def test_pictures_in_parquet_are_read_by_row_from_any_row_group(tmp_path: Path) -> None:
    held = [{"bytes": b"%d" % i if i != 5 else None, "path": f"{i}.jpg"} for i in range(40)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"image": held, "family": ["Apidae"] * 40}), path, row_group_size=16)
    for i in (0, 1, 17, 39, 3, 16, 15):
        assert read_member(path, picture_member(i, f"{i}.jpg")) == b"%d" % i
    for member in (picture_member(5, "5.jpg"), picture_member(40, "x.jpg"), "nothing.jpg"):
        with pytest.raises(FileNotFoundError):
            read_member(path, member)


def test_numbers_that_stand_for_names_are_read_as_the_names(tmp_path: Path) -> None:
    features = {"family": {"names": ["Apidae", "Labridae"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    held = [{"bytes": b"a", "path": None}] * 2
    table = pa.table({"image": held, "family": [1, 0]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "test-00000-of-00001.parquet")
    first, second = open_reader(tmp_path)
    assert not isinstance(first, Rejected)
    assert not isinstance(second, Rejected)
    assert (first.lineage.label, second.lineage.label, first.split) == ("Labridae", "Apidae", "test")
