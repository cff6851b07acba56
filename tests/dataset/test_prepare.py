"""Laws of the prepared data set: every row is accounted for, nothing is half-written, a stopped run goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from taxadiffusion.dataset import PreparedDataset, PrepareProgress, PrepareReport, PrepareSettings, prepare
from taxadiffusion.dataset.duplicates import near_duplicates
from taxadiffusion.dataset.shards import await_first, await_parts
from taxadiffusion.dataset.split import assign_splits, groups_across_splits
from taxadiffusion.dataset.verify import SetPart, is_verified, look_at, verify_part
from taxadiffusion.dataset.workers import verify_parts
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage

HEADER = "file_name,split,group,family,genus,species"


def photo(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(60, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((32, 24), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


def source(folder: Path, rows: list[str], header: str = HEADER) -> Path:
    """A folder whose table has `rows`; the photograph of each is drawn where it does not exist."""
    for seed, row in enumerate(rows):
        name = row.split(",")[0]
        if name.endswith(".jpg") and not (folder / name).exists():
            photo(folder / name, seed)
    (folder / "metadata.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return folder


EPITHETS = ["alba", "bruna", "cana", "dura", "elata", "fusca", "grata", "hirta"]
ROWS = [
    f"{i}.jpg,{'test' if i % 5 == 0 else 'train'},g{i // 2},F{i % 2},G{'abcd'[i % 4]},{EPITHETS[i % 8]}"
    for i in range(40)
]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    return source(tmp_path / "photos", ROWS)


def balanced(report: PrepareReport) -> bool:
    parts = report.images + report.quarantined + report.repeated_rows + report.duplicate_images
    return report.rows == parts and report.quarantined == sum(report.reasons.values())


# What is prepared is what the source says


def test_rows_come_back_as_they_were(photos: Path, tmp_path: Path) -> None:
    report = prepare(photos, tmp_path / "out", num_workers=1)
    dataset = PreparedDataset.open(tmp_path / "out")
    assert (len(dataset), report.images, report.rows) == (40, 40, 40)
    assert balanced(report)
    for row, text in enumerate(ROWS):
        name, split, group, *names = text.split(",")
        record = dataset.record(row)
        data = (photos / name).read_bytes()
        assert (record.path, record.split, record.group) == (photos / name, split, group)
        assert (record.sha256, record.width, record.height) == (hashlib.sha256(data).hexdigest(), 32, 24)
        assert (record.source, record.row) == ("metadata.csv", row + 2)
        assert dataset.lineage(row) == Lineage.of(zip(("family", "genus", "species"), names, strict=True))
    assert dataset.rows("test").tolist() == [i for i in range(40) if i % 5 == 0]
    assert sorted([*dataset.rows("train"), *dataset.rows("test")]) == dataset.rows().tolist()
    assert dataset.counts("train").max() == 16
    assert dataset.counts("train").sum() == 3 * 32
    assert dataset.image(3, 16).shape == (3, 16, 16)
    table = pq.read_table(tmp_path / "out" / "images.parquet")
    assert table["taxon_id"].to_pylist() == dataset.taxon_ids().tolist()


def test_a_pickled_data_set_opens_in_another_process(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "out", num_workers=1)
    copy = pickle.loads(pickle.dumps(PreparedDataset.open(tmp_path / "out")))
    assert copy.record(7) == PreparedDataset.open(tmp_path / "out").record(7)


def test_taxon_ids_do_not_depend_on_the_order_of_rows(photos: Path, tmp_path: Path) -> None:
    first = prepare(photos, tmp_path / "a", num_workers=1)
    source(photos, ROWS[::-1])
    second = prepare(photos, tmp_path / "b", num_workers=1)
    assert first.taxonomy_hash == second.taxonomy_hash
    assert first.content_hash != second.content_hash


def test_processes_do_not_change_the_data_set(photos: Path, tmp_path: Path) -> None:
    one = prepare(photos, tmp_path / "one", num_workers=1)
    two = prepare(photos, tmp_path / "two", num_workers=2)
    assert dataclasses.asdict(one) == dataclasses.asdict(two)
    for name in ("images.arrow", "images.parquet", "taxonomy.parquet", "quarantine.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_two_processes_that_share_the_work_make_the_same_data_set(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("listing", "write", "judge"):
        monkeypatch.setattr(f"taxadiffusion.dataset.{module}.ROWS_PER_BATCH", 4)
    alone = prepare(photos, tmp_path / "alone", num_workers=1)
    script = f"""
        import sys
        from pathlib import Path
        from taxadiffusion.dataset import PrepareSettings, Shard, listing, prepare, verify, write, judge
        for module in (listing, write, judge):
            module.ROWS_PER_BATCH = 4
        seen = []
        look_at = verify.look_at
        verify.look_at = lambda *a: seen.append(a[1]) or look_at(*a)
        number = int(sys.argv[1])
        report = prepare({str(photos)!r}, {str(tmp_path / "shared")!r}, num_workers=1, shard=Shard(number, 2))
        print(report.content_hash, len(seen))
    """
    path = tmp_path / "run.py"
    path.write_text(textwrap.dedent(script))
    runs = [
        subprocess.Popen([sys.executable, path, str(number)], stdout=subprocess.PIPE, text=True) for number in (0, 1)
    ]
    outputs = [run.communicate(timeout=60)[0].split() for run in runs]
    assert outputs == [[alone.content_hash, "20"], [alone.content_hash, "20"]]
    for name in ("images.arrow", "taxonomy.parquet"):
        rows = [(tmp_path / folder / name).read_bytes() for folder in ("alone", "shared")]
        assert rows[0] == rows[1]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone", "photos", "run.py", "shared"]


def test_a_share_that_nobody_does_is_taken_over(tmp_path: Path) -> None:
    name = photo(tmp_path / "1.jpg", 1).name
    part = SetPart(str(tmp_path), (name,), (None,), str(tmp_path), str(tmp_path / "part.arrow"))
    assert list(await_parts([part], num_workers=1, patience_s=0.3)) == [1]
    assert is_verified(part)
    with pytest.raises(DataError, match="process 0 of this run is not at work"):
        await_first(tmp_path / "out", tmp_path / "work", patience_s=0.3)


def test_ranks_and_limit_choose(photos: Path, tmp_path: Path) -> None:
    report = prepare(photos, tmp_path / "out", PrepareSettings(ranks="family,species", limit=10), num_workers=1)
    dataset = PreparedDataset.open(tmp_path / "out")
    assert (report.rows, dataset.ranks) == (10, ("family", "species"))
    assert dataset.lineage(0) == Lineage.of({"family": "F0", "species": "alba"})


# Bad input


def test_every_bad_row_and_file_is_quarantined_with_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "pipe.jpg").unlink(missing_ok=True)
    os.mkfifo(folder / "pipe.jpg")
    (folder / "folder.jpg").mkdir()
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<!doctype html>")
    photo(tmp_path / "outside.jpg", 99)
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    good = photo(folder / "cut.jpg", 98).read_bytes()
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    bad = ["pipe", "folder", "empty", "page", "link", "device", "cut"]
    rows = [f"{name}.jpg,,,F,G,s" for name in bad] + [
        "gone.png,,,F,G,s",
        "../outside.jpg,,,F,G,s",
        "x.jpg,,,,,",
        "short",
    ]
    report = prepare(
        source(folder, ROWS + rows), tmp_path / "out", PrepareSettings(max_bad_fraction=0.5), num_workers=1
    )
    assert balanced(report)
    assert (report.rows, report.images, report.quarantined) == (51, 40, 11)
    listed = (tmp_path / "out" / "quarantine.csv").read_text().splitlines()
    assert len(listed) == 1 + 11
    words = ["regular", "regular", "empty", "web page", "link", "link", "decode", "missing", "..", "no rank", "cells"]
    for name, word in zip([*bad, "gone", "../outside", "x.jpg", "short"], words, strict=True):
        (line,) = [line for line in listed if line.split(",", 2)[2].startswith(name)]
        assert word in line


@pytest.mark.parametrize(("case", "kind"), [("i-badexif", "EXIF"), ("i-badmpo", "MPF")])
def test_damaged_metadata_cost_no_picture_and_are_counted(shared: Path, tmp_path: Path, case: str, kind: str) -> None:
    place = shared / "cases" / "field" / case
    if not place.is_dir():
        pytest.skip(f"needs cases/field/{case} in ../shared")
    report = prepare(place, tmp_path / "out", num_workers=1)
    assert (report.images, report.quarantined) == (20, 0)
    assert (report.damaged_metadata, report.damaged_metadata_examples) == ({kind: 1}, ["p004.jpg"])
    assert PrepareReport.read(tmp_path / "out") == report
    assert PreparedDataset.open(tmp_path / "out").image(4, 16).shape == (3, 16, 16)


def test_too_many_bad_files_stop_and_leave_nothing(photos: Path, tmp_path: Path) -> None:
    (photos / "3.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 of 40 rows .*max-bad-fraction 0\.01.*the file is empty") as caught:
        prepare(photos, tmp_path / "out", num_workers=1)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()
    photo(photos / "3.jpg", 3)
    assert prepare(photos, tmp_path / "out", num_workers=1).images == 40


def test_repeated_rows_and_equal_files_are_collapsed_and_counted(photos: Path, tmp_path: Path) -> None:
    (photos / "copy.jpg").write_bytes((photos / "1.jpg").read_bytes())
    source(photos, [*ROWS, ROWS[1], ROWS[1].replace("1.jpg", "copy.jpg")])
    report = prepare(photos, tmp_path / "out", num_workers=1)
    assert (report.images, report.repeated_rows, report.duplicate_images) == (40, 1, 1)
    assert balanced(report)


def test_all_contradictions_are_listed_at_once(photos: Path, tmp_path: Path) -> None:
    extra = ["1.jpg,train,,F1,Gb,ornata", "a.jpg,train,,F9,Gb,bruna", "b.jpg,train,,F8,Gc,cana"]
    source(photos, [*ROWS, *extra])
    with pytest.raises(DataError) as caught:
        prepare(photos, tmp_path / "out", num_workers=1)
    text = str(caught.value)
    assert text.startswith("3 contradictions")
    assert "metadata.csv:3 and metadata.csv:42: 1.jpg is labelled both 'Gb bruna' and 'Gb ornata'" in text
    assert "genus Gb lies in 2 family taxa" in text
    assert "genus Gc lies in 2 family taxa" in text
    report = prepare(
        photos, tmp_path / "out", PrepareSettings(allow_contradictions=True, max_bad_fraction=0.1), num_workers=1
    )
    assert (report.images, report.quarantined) == (41, 2)
    assert balanced(report)
    taxonomy = PreparedDataset.open(tmp_path / "out").taxonomy
    assert sorted(map(taxonomy.name, taxonomy.at_rank("genus"))) == ["Ga", "Gb", "Gb", "Gc", "Gc", "Gd"]


def test_equal_files_with_two_labels_are_a_contradiction(photos: Path, tmp_path: Path) -> None:
    (photos / "copy.jpg").write_bytes((photos / "1.jpg").read_bytes())
    source(photos, [*ROWS, "copy.jpg,train,,F0,Ga,alba"])
    with pytest.raises(
        DataError, match=r"1\.jpg and copy\.jpg are one picture, labelled both 'Gb bruna' and 'Ga alba'"
    ):
        prepare(photos, tmp_path / "out", num_workers=1)


def test_two_animals_with_boxes_in_one_picture_are_two_images(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = ['1.jpg,F,Ga,alba,"[0, 0, 9, 9]"', *['1.jpg,F,Ga,bruna,"[9, 9, 9, 9]"'] * 2]
    folder = source(tmp_path / "photos", rows, "file_name,family,genus,species,bbox")
    report = prepare(folder, tmp_path / "out", num_workers=1)
    assert (report.images, report.repeated_rows, report.duplicate_images) == (2, 1, 0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"val_fraction": 1.0}, SettingsError, "val_fraction"),
        ({"max_bad_fraction": -1}, SettingsError, "max_bad_fraction"),
        ({"limit": 0}, SettingsError, "limit"),
        ({"ranks": "tribe"}, SettingsError, "tribe"),
        ({"options": {"root": Path("/none")}}, DataError, "image folder is missing"),
        ({"fix": Path("/none.yaml")}, SettingsError, "none.yaml"),
    ],
)
def test_wrong_settings_are_named(photos: Path, tmp_path: Path, change: Any, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        prepare(photos, tmp_path / "out", PrepareSettings(**change), num_workers=1)
    assert not (tmp_path / "out").exists()


def test_an_empty_table_and_a_missing_folder_are_errors(photos: Path, tmp_path: Path) -> None:
    (photos / "metadata.csv").write_text(HEADER + "\n")
    with pytest.raises(DataError, match="no rows"):
        prepare(photos, tmp_path / "out", num_workers=1)
    with pytest.raises(DataError, match="no such file or folder"):
        prepare(tmp_path / "none", tmp_path / "out")


# Whole or absent


def stopped(photos: Path, out: Path, phase: str) -> None:
    """A run that ends, as if killed, when the phase reports."""

    class KilledError(Exception):
        pass

    def stop(progress: PrepareProgress) -> None:
        if progress.phase == phase and progress.done:
            raise KilledError

    with pytest.raises(KilledError):
        prepare(photos, out, num_workers=1, on_progress=stop)


@pytest.mark.parametrize("phase", ["list", "verify", "write"])
def test_a_stopped_run_leaves_nothing_and_goes_on(photos: Path, tmp_path: Path, phase: str) -> None:
    stopped(photos, tmp_path / "out", phase)
    assert not (tmp_path / "out").exists()
    report = prepare(photos, tmp_path / "out", num_workers=1)
    assert dataclasses.asdict(report) == dataclasses.asdict(prepare(photos, tmp_path / "fresh", num_workers=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out", "photos"]


def test_verified_parts_are_used_again_unless_a_file_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [photo(tmp_path / f"{i}.jpg", i).name for i in range(4)]
    part = SetPart(str(tmp_path), tuple(names), (None,) * 4, str(tmp_path), str(tmp_path / "part.arrow"))
    assert verify_part(part) == 4
    looked: list[str] = []
    monkeypatch.setattr("taxadiffusion.dataset.verify.look_at", lambda *a: looked.append(a[1]) or look_at(*a))
    verify_part(part)
    assert looked == []
    photo(tmp_path / "2.jpg", 50)
    os.utime(tmp_path / "2.jpg", ns=(1, 1))
    assert not is_verified(part)
    verify_part(part)
    assert looked == names


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_no_worker_and_the_next_run_finishes(
    photos: Path, tmp_path: Path, number: signal.Signals
) -> None:
    script = f"""
        import os, signal
        from taxadiffusion.dataset import PrepareSettings, judge, listing, prepare, write
        for module in (listing, write, judge):
            module.ROWS_PER_BATCH = 4
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit it as ignored
        def kill(progress):
            if progress.phase == "verify" and progress.done:
                os.kill(os.getpid(), {int(number)})
        prepare({str(photos)!r}, {str(tmp_path / "out")!r}, num_workers=2, on_progress=kill)
    """
    path = tmp_path / "run.py"
    path.write_text(textwrap.dedent(script))
    marked = {**os.environ, "MARK_OF_THIS_RUN": str(tmp_path)}
    run = subprocess.run([sys.executable, path], check=False, env=marked, capture_output=True, timeout=60)
    assert run.returncode == -number
    assert not (tmp_path / "out").exists()
    end = time.monotonic() + 10
    while (left := marked_processes(str(tmp_path))) and time.monotonic() < end:
        time.sleep(0.05)
    assert not left
    assert prepare(photos, tmp_path / "out", num_workers=1).images == 40


def marked_processes(mark: str) -> list[str]:
    """Processes whose environment holds the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MARK_OF_THIS_RUN={mark}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
    return found


def test_a_picture_that_kills_its_process_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [photo(tmp_path / f"{i}.jpg", i).name for i in range(4)]
    parts = [
        SetPart(str(tmp_path), (names[i], names[i + 1]), (None, None), str(tmp_path), str(tmp_path / f"part{i}"))
        for i in (0, 2)
    ]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "if 'popen_loky' in ' '.join(sys.orig_argv):\n"
        "    from taxadiffusion.dataset import verify, workers\n"
        "    look_at = verify.look_at\n"
        "    def deadly(root, image, *a):\n"
        "        return os._exit(9) if image == '2.jpg' else look_at(root, image, *a)\n"
        "    verify.look_at = workers.look_at = deadly\n"
    )
    assert sum(verify_parts(parts, 2)) == 4
    from taxadiffusion.dataset.verify import read_result

    faults = [fault for part in parts for fault in read_result(part.result).column("fault").to_pylist()]
    assert faults[:2] == [None, None]
    assert faults[2] == "decoding the picture ended the process"
    assert faults[3] is None


def test_a_script_without_main_guard_may_use_worker_processes(tmp_path: Path) -> None:
    root = source(tmp_path / "photos", ROWS[:12])
    script = f"""
        from pathlib import Path
        with Path({str(tmp_path / "runs")!r}).open("a") as runs:
            runs.write("run\\n")
        from taxadiffusion.dataset import PrepareSettings, listing, prepare, write, judge
        for module in (listing, write, judge):
            module.ROWS_PER_BATCH = 4
        print(prepare({str(root)!r}, {str(tmp_path / "out")!r}, num_workers=2).images)
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    run = subprocess.run([sys.executable, tmp_path / "run.py"], capture_output=True, text=True, timeout=60, check=False)
    assert (run.returncode, run.stdout.split(), run.stderr) == (0, ["12"], "")
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_pool_that_cannot_start_is_one_error_and_blames_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [photo(tmp_path / f"{i}.jpg", i).name for i in range(2)]
    parts = [SetPart(str(tmp_path), (name,), (None,), str(tmp_path), str(tmp_path / f"{name}.part")) for name in names]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'popen_loky' in ' '.join(sys.orig_argv): os._exit(7)"
    )
    with pytest.raises(SettingsError, match="2 worker processes cannot be started"):
        list(verify_parts(parts, 2))
    assert not [part for part in parts if Path(part.result).exists()]


def test_preparing_again_changes_nothing_and_other_rows_are_refused(photos: Path, tmp_path: Path) -> None:
    first = prepare(photos, tmp_path / "out", num_workers=1)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert prepare(photos, tmp_path / "out", num_workers=1) == first
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == before
    with pytest.raises(DataError, match="settings differ"):
        prepare(photos, tmp_path / "out", PrepareSettings(val_fraction=0.5), num_workers=1)
    source(photos, ROWS[:-1])
    with pytest.raises(DataError, match="the rows differ"):
        prepare(photos, tmp_path / "out", num_workers=1)


def test_an_output_that_holds_something_else_is_left_alone(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(DataError, match="not empty"):
        prepare(photos, tmp_path / "out", num_workers=1)
    with pytest.raises(DataError, match="is a file"):
        prepare(photos, tmp_path / "out" / "thesis.tex", num_workers=1)


def test_two_runs_at_once_are_refused(photos: Path, tmp_path: Path) -> None:
    def second(progress: PrepareProgress) -> None:
        if progress.phase == "verify":
            with pytest.raises(DataError, match="another process"):
                prepare(photos, tmp_path / "out", num_workers=1)

    assert prepare(photos, tmp_path / "out", num_workers=1, on_progress=second).images == 40


@pytest.mark.parametrize("damage", ["report.json", "images.arrow", "taxonomy.parquet"])
def test_a_damaged_data_set_is_one_named_error(photos: Path, tmp_path: Path, damage: str) -> None:
    prepare(photos, tmp_path / "out", num_workers=1)
    path = tmp_path / "out" / damage
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match="prepare again"):
        len(PreparedDataset.open(tmp_path / "out").taxonomy)


def test_a_moved_image_folder_can_be_given(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "out", num_workers=1)
    photos.rename(tmp_path / "moved")
    with pytest.raises(DataError, match="is missing; say where the pictures are now with --root"):
        PreparedDataset.open(tmp_path / "out")
    assert PreparedDataset.open(tmp_path / "out", root=tmp_path / "moved").image(0, 8).shape == (3, 8, 8)


# Packages


def test_pictures_in_packages_are_unpacked_as_they_are(tmp_path: Path) -> None:
    picture = photo(tmp_path / "1.jpg", 1).read_bytes()
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.writestr("part1/1.jpg", picture)
    facts = look_at(str(tmp_path), "p.zip", "part1/1.jpg", str(tmp_path / "work"))
    assert facts["sha256"] == hashlib.sha256(picture).digest()
    assert (tmp_path / "work" / "images" / "p.zip.d" / "part1" / "1.jpg").read_bytes() == picture
    for member, reason in (("part1/2.jpg", "missing"), ("../1.jpg", "..")):
        assert reason in look_at(str(tmp_path), "p.zip", member, str(tmp_path / "work"))["fault"]
    (tmp_path / "broken.zip").write_bytes(b"PK\x03\x04")
    assert "damaged zip" in look_at(str(tmp_path), "broken.zip", "1.jpg", str(tmp_path / "work"))["fault"]


# Splits and likeness


def shuffled(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
    order = np.random.default_rng(1).permutation(len(arrays[0]))
    return tuple(array[order] for array in arrays)


def test_validation_takes_whole_groups_of_every_taxon_whatever_the_order() -> None:
    chance = np.random.default_rng(0)
    taxa = np.sort(chance.integers(0, 20, 4000)).astype(np.int32)
    groups = (taxa * 1000 + chance.integers(0, 40, 4000)).astype(np.uint64)
    published = np.where(chance.random(4000) < 0.1, 2, -1).astype(np.int8)
    splits = assign_splits(published, taxa, groups, 0.2)
    assert (splits[published == 2] == 2).all()
    free = ~np.isin(groups, groups[published == 2])
    assert groups_across_splits(groups[free], splits[free]) == 0
    for taxon in range(20):
        mine = np.unique(groups[free & (taxa == taxon)])
        held = np.unique(groups[free & (taxa == taxon) & (splits == 1)])
        assert abs(len(held) - 0.2 * len(mine)) <= 0.5 + 1e-9
    again = assign_splits(*shuffled(published, taxa, groups), 0.2)
    assert np.array_equal(again, shuffled(splits)[0])


def test_photographs_for_judges_stay_in_their_split(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = [f"{i}.jpg,{('Judge', 'train', 'test')[i % 3]},g{i},F0,Ga,alba" for i in range(12)]
    report = prepare(
        source(tmp_path / "photos", rows), tmp_path / "out", PrepareSettings(val_fraction=0.5), num_workers=1
    )
    dataset = PreparedDataset.open(tmp_path / "out")
    assert report.images_per_split == {"train": 2, "val": 2, "test": 4, "judge": 4}
    assert {dataset.record(int(row)).path.name for row in dataset.rows("judge")} == {
        f"{i}.jpg" for i in range(0, 12, 3)
    }


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 0.99])
def test_a_taxon_never_loses_its_last_training_group(fraction: float) -> None:
    taxa = np.repeat(np.arange(6), [1, 1, 2, 3, 5, 9]).astype(np.int32)
    splits = assign_splits(np.full(21, -1, np.int8), taxa, np.arange(21, dtype=np.uint64), fraction)
    assert set(taxa[splits == 0]) == set(range(6))


def test_near_duplicates_are_those_of_an_exhaustive_search() -> None:
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**63, 300, dtype=np.uint64)
    for i in range(100):
        flips = chance.choice(64, chance.integers(0, 6), replace=False)
        hashes[200 + i] = hashes[i] ^ np.bitwise_or.reduce(
            np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0)
        )
    splits = chance.integers(0, 3, 300).astype(np.int8)
    expected = [
        [i, j]
        for i in range(300)
        for j in range(i + 1, 300)
        if splits[i] != splits[j] and (int(hashes[i]) ^ int(hashes[j])).bit_count() <= 3
    ]
    assert near_duplicates(hashes, splits).tolist() == expected
    assert len(expected) > 20


def test_a_recompressed_copy_in_another_split_is_reported(photos: Path, tmp_path: Path) -> None:
    Image.open(photos / "1.jpg").resize((64, 48)).save(photos / "copy.jpg", quality=60)
    source(photos, [*ROWS, "copy.jpg,test,,F1,Gb,bruna"])
    report = prepare(photos, tmp_path / "out", num_workers=1)
    assert report.near_duplicate_examples == [["1.jpg", "copy.jpg"]]
    assert report.near_duplicates_across_splits == 1


# Scale


def word(number: int) -> str:
    return "".join(chr(97 + number // 26**place % 26) for place in (2, 1, 0)) + "us"


def test_opening_and_reading_a_row_does_not_read_the_rows(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    rows = [f"{i}.png,train,o{i // 3},F{i % 50},{word(i % 500).title()},{word(i % 5000)}" for i in range(30_000)]
    (tmp_path / "photos" / "metadata.csv").write_text("\n".join([HEADER, *rows]))
    report = prepare(tmp_path / "photos", tmp_path / "out", PrepareSettings(verify=False), num_workers=1)
    assert (report.images, report.taxa_per_rank["species"]) == (30_000, 5_000)
    start = time.process_time()
    dataset = PreparedDataset.open(tmp_path / "out")
    assert dataset.record(27_777).path.name == "27777.png"
    assert time.process_time() - start < 0.2
    assert dataset.taxon_ids().dtype == np.int32
    assert len(dataset.rows("train")) == 30_000


def test_reef_fish(shared: Path, tmp_path: Path) -> None:
    report = prepare(
        shared / "data" / "reef-fish",
        tmp_path / "out",
        PrepareSettings(ranks="order,family,genus,species", verify=False),
        num_workers=1,
    )
    assert report.images == 6_585
    assert report.taxa_per_rank == {"order": 6, "family": 13, "genus": 20, "species": 22}
    assert report.images_at_rank == {"family": 54, "species": 6_531}
    assert report.groups_across_splits == 0
