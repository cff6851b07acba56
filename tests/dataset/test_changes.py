"""Laws of pictures that change after they were prepared: named where they are read, and never used."""

from __future__ import annotations

import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from taxadiffusion.cache import cached_latents
from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.dataset.changes import PARTED, REPAIRED
from taxadiffusion.dataset.export import export
from taxadiffusion.errors import DataError
from taxadiffusion.images import CHANGED, ImageError
from tests.tiny_run import tiny_base

NUM_IMAGES = 6


def draw(path: Path, seed: int) -> Path:
    """BMP: all of one size in bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), np.uint8)).save(path, "BMP")
    return path


def table(root: Path, names: list[str]) -> None:
    lines = [f"{name},Fam,Gen,{'abcdefgh'[i]}lba" for i, name in enumerate(names)]
    (root / "metadata.csv").write_text("\n".join(["file_name,family,genus,species", *lines]) + "\n")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    names = [draw(tmp_path / "photos" / f"{i}.bmp", i).name for i in range(NUM_IMAGES)]
    table(tmp_path / "photos", names)
    return tmp_path / "photos"


def prepared(photos: Path) -> PreparedDataset:
    prepare(photos, photos.parent / "out", PrepareSettings(max_bad_fraction=0.5), num_workers=1)
    return PreparedDataset.open(photos.parent / "out")


def replaced(path: Path) -> None:
    """Another picture of the same size, later."""
    draw(path, 99)
    os.utime(path, ns=(path.stat().st_mtime_ns + 10**9,) * 2)


def test_a_changed_picture_is_named_wherever_it_is_read_and_never_used(photos: Path, tmp_path: Path) -> None:
    from taxadiffusion.base.backbone import Backbone

    dataset = prepared(photos)
    replaced(photos / "2.bmp")
    assert dataset.image(1, 8).shape == (3, 8, 8)
    with pytest.raises(ImageError, match=f"2.bmp: {CHANGED}"):
        dataset.image(2, 8)
    for target in ("imagefolder", "webdataset", "html"):
        with pytest.raises(DataError, match=f"2.bmp: {CHANGED}"):
            export(dataset, tmp_path / target, target)
        assert not (tmp_path / target).exists()
    latents = cached_latents(tmp_path / "cache", dataset, Backbone.load(str(tiny_base())))
    (fault,) = latents.unreadable
    assert (fault.row, fault.reason.startswith(CHANGED)) == (2, True)
    assert latents.read(np.arange(NUM_IMAGES), np.zeros(NUM_IMAGES, int))[1].tolist() == [i != 2 for i in range(6)]


def test_another_time_alone_is_no_change(photos: Path) -> None:
    """As after a copy or a checkout that keeps no times."""
    dataset = prepared(photos)
    for path in photos.iterdir():
        os.utime(path, ns=(1, 1))
    assert [dataset.image(row, 8).shape for row in dataset.rows()] == [(3, 8, 8)] * NUM_IMAGES
    assert prepare(photos, dataset.path, PrepareSettings(max_bad_fraction=0.5), num_workers=1) == dataset.report
    again = prepare(photos, photos.parent / "again", num_workers=1)
    assert again.content_hash == dataset.content_hash


@pytest.mark.parametrize("change", ["replaced", "broken", "longer", "missing"])
def test_preparing_again_names_what_changed_and_touches_nothing(photos: Path, change: str) -> None:
    dataset = prepared(photos)
    before = {path.name: path.stat().st_mtime_ns for path in dataset.path.iterdir()}
    path = photos / "2.bmp"
    if change == "replaced":
        replaced(path)
    elif change == "missing":
        path.unlink()
    else:
        path.write_bytes(b"not a picture" if change == "broken" else path.read_bytes() + b"\0")
    reason = "the file is missing" if change == "missing" else CHANGED
    with pytest.raises(DataError, match=rf"1 of its 6 pictures .*\n  metadata.csv:4: 2.bmp: {reason}\n"):
        prepare(photos, dataset.path, PrepareSettings(max_bad_fraction=0.5), num_workers=1)
    assert {path.name: path.stat().st_mtime_ns for path in dataset.path.iterdir()} == before
    (photos / "2.bmp").write_bytes(draw(photos.parent / "old.bmp", 2).read_bytes())
    assert prepare(photos, dataset.path, PrepareSettings(max_bad_fraction=0.5), num_workers=1) == dataset.report


def test_preparing_again_sees_what_was_left_out(photos: Path) -> None:
    (photos / "3.bmp").write_bytes(b"not a picture")
    draw(photos / "5.bmp", 1)
    table(photos, [f"{i}.bmp" for i in range(NUM_IMAGES)])
    text = (photos / "metadata.csv").read_text().replace("5.bmp,Fam,Gen,flba", "5.bmp,Fam,Gen,blba")
    (photos / "metadata.csv").write_text(text)
    dataset = prepared(photos)
    assert (dataset.report.quarantined, dataset.report.duplicate_images) == (1, 1)
    assert prepare(photos, dataset.path, PrepareSettings(max_bad_fraction=0.5), num_workers=1) == dataset.report
    draw(photos / "3.bmp", 3)
    draw(photos / "5.bmp", 5)
    with pytest.raises(DataError, match=f"2 of its 6 pictures (.|\n)*3.bmp: {REPAIRED}(.|\n)*5.bmp: {PARTED}"):
        prepare(photos, dataset.path, PrepareSettings(max_bad_fraction=0.5), num_workers=1)


def test_rows_left_out_for_their_labels_are_no_change(photos: Path) -> None:
    draw(photos / "5.bmp", 1)
    chosen = PrepareSettings(max_bad_fraction=0.5, allow_contradictions=True)
    first = prepare(photos, photos.parent / "out", chosen, num_workers=1)
    assert first.quarantined == 2
    assert prepare(photos, photos.parent / "out", chosen, num_workers=1) == first


def test_pictures_from_packages_are_compared_with_their_copies_and_packages(tmp_path: Path) -> None:
    from taxadiffusion.dataset.changes import changed_pictures
    from taxadiffusion.dataset.listing import Listing, Quarantine
    from taxadiffusion.dataset.preparation import Preparation
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.names import Lineage
    from taxadiffusion.readers import Record

    root, out, work = tmp_path / "source", tmp_path / "out", tmp_path / "work"
    for folder in (root, work):
        folder.mkdir()

    def pack(first_seed: int) -> None:
        with zipfile.ZipFile(root / "p.zip", "w") as archive:
            for i in range(3):
                archive.write(draw(tmp_path / "drawn.bmp", first_seed + i), f"{i}.bmp")

    class Reader:
        name, ranks = "packed", ("genus",)

        def __iter__(self):  # type: ignore[no-untyped-def]
            for i in range(3):
                yield Record("p.zip", Lineage.of([("genus", "Gen")]), "table", i, member=f"{i}.bmp")

    Reader.root = root
    pack(0)
    job = Preparation(Reader(), root, out, work, work, PrepareSettings(), 1, Shard(), lambda _: None)
    job.run()
    dataset = PreparedDataset.open(out)
    assert dataset.image(0, 8).shape == (3, 8, 8)
    with Quarantine(work / "quarantine.csv") as quarantine:
        listing = Listing(("genus",), work / "listing.arrow")
        listing.read(Reader(), quarantine, None, lambda _: None)

    def changed() -> list[str]:
        return [change.image for change in changed_pictures(listing, out, root, work, lambda _: None)]

    assert changed() == []
    os.utime(root / "p.zip", ns=(1, 1))
    assert changed() == []
    pack(1)
    assert changed() == ["0.bmp", "1.bmp", "2.bmp"]
    (root / "p.zip").unlink()
    assert changed() == []  # the copies are whole
    replaced(out / "images" / "p.zip.d" / "1.bmp")
    assert changed() == ["1.bmp"]
    with pytest.raises(ImageError, match=CHANGED):
        dataset.image(1, 8)


def test_sets_of_earlier_versions_are_read_and_what_they_lack_is_said_once(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = prepared(photos)
    with pa.memory_map(str(dataset.path / "images.arrow")) as stream:
        rows = pa.ipc.open_file(stream).read_all().drop_columns(["num_bytes", "file_time_ns"])
    with pa.OSFile(str(photos.parent / "old"), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
        writer.write_table(rows)
    (photos.parent / "old").replace(dataset.path / "images.arrow")
    replaced(photos / "2.bmp")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            old = PreparedDataset.open(dataset.path)
            assert old.image(2, 8).shape == (3, 8, 8)
            assert old.record(2).seen is None
        assert prepare(photos, dataset.path, PrepareSettings(max_bad_fraction=0.5), num_workers=1) == dataset.report
    assert len(caplog.messages) == 1
    assert "whether its pictures have changed since is not checked" in caplog.messages[0]
