"""Laws of links: one rule for folders and files, inside the root and out of it; walks end; nothing goes unsaid."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.dataset.export import export
from taxadiffusion.dataset.inspect import CheckSettings, inspect_source
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.readers import Record, Rejected, open_reader
from taxadiffusion.readers.links import (
    FILE_AS_TEXT,
    FOLDER_AS_TEXT,
    FOLDER_LEAVES_ROOT,
    LEADS_NOWHERE,
    LEAVES_ROOT,
    PASSED_OVER,
)


def draw(folder: Path, number: int = 3, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for i in range(number):
        pixels = np.random.default_rng([seed, i, len(folder.name), ord(folder.name[0])]).integers(0, 255, (16, 16, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def link(at: Path, target: Path | str) -> Path:
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(target)
    return at


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A species in a folder of its own; `tmp_path / "store"` holds two more, outside."""
    draw(tmp_path / "store" / "Chromis_viridis")
    draw(tmp_path / "store" / "Zanclus_cornutus")
    draw(tmp_path / "photos" / "Amphiprion_clarkii")
    return tmp_path / "photos"


def rows(source: Path, **options: Any) -> tuple[list[str], dict[str, str]]:
    """Pictures, and refused paths with their reasons."""
    found = list(open_reader(source, **options))
    pictures = [item.image for item in found if isinstance(item, Record)]
    return pictures, {item.value: item.reason for item in found if isinstance(item, Rejected)}


def ready(source: Path, on_progress: Any = None, **asked: Any) -> PreparedDataset:
    prepare(source, source.parent / "out", PrepareSettings(**asked), num_workers=1, on_progress=on_progress)
    return PreparedDataset.open(source.parent / "out")


# Inside


def test_links_inside_the_root_are_followed_wherever_they_stand(root: Path) -> None:
    draw(root / "Chromis_viridis", seed=1)
    link(root / "train" / "Chromis_caerulea", root / "Chromis_viridis")
    link(root / "Zanclus_cornutus" / "below" / "again", "../../Amphiprion_clarkii")
    link(root / "Zanclus_cornutus" / "0.png", "../Chromis_viridis/1.png")
    pictures, refused = rows(root)
    assert refused == {}
    assert pictures == [
        *(f"Amphiprion_clarkii/{i}.png" for i in range(3)),
        *(f"Chromis_viridis/{i}.png" for i in range(3)),
        "Zanclus_cornutus/0.png",
        *(f"Zanclus_cornutus/below/again/{i}.png" for i in range(3)),
        *(f"train/Chromis_caerulea/{i}.png" for i in range(3)),
    ]


def test_what_links_inside_name_twice_is_one_picture(root: Path) -> None:
    link(root / "train" / "Amphiprion_clarkii", root / "Amphiprion_clarkii")
    dataset = ready(root)
    assert (len(dataset), dataset.report.duplicate_images) == (3, 3)


# Outside


def test_a_folder_outside_is_refused_by_name_and_used_when_allowed(root: Path) -> None:
    for name in ("Chromis_viridis", "Zanclus_cornutus"):
        link(root / name, root.parent / "store" / name)
    with pytest.raises(DataError, match=r"2 folders .*\n  Chromis_viridis, Zanclus_cornutus: the folder is a link out"):
        ready(root, max_bad_fraction=1.0)
    assert rows(root)[1] == dict.fromkeys(("Chromis_viridis", "Zanclus_cornutus"), FOLDER_LEAVES_ROOT)
    dataset = ready(root, follow_links=True)
    assert len(dataset) == 9
    assert {dataset.lineage(row).label for row in dataset.rows()} == {
        "Amphiprion clarkii", "Chromis viridis", "Zanclus cornutus",
    }  # fmt: skip
    assert dataset.image(8, 8).shape == (3, 8, 8)
    assert export(dataset, root.parent / "exported", "imagefolder").num_items == 9
    assert prepare(root, dataset.path, PrepareSettings(follow_links=True), num_workers=1) == dataset.report
    with pytest.raises(DataError, match="--follow-links"):
        prepare(root, dataset.path, num_workers=1)


def test_a_folder_outside_within_a_species_folder_is_refused_too(root: Path) -> None:
    link(root / "Amphiprion_clarkii" / "deep" / "more", root.parent / "store" / "Chromis_viridis")
    assert rows(root)[1] == {"Amphiprion_clarkii/deep/more": FOLDER_LEAVES_ROOT}
    with pytest.raises(DataError, match="Amphiprion_clarkii/deep/more"):
        ready(root)
    assert len(ready(root, follow_links=True)) == 6


@pytest.mark.parametrize("kind", ["folders", "table"])
def test_a_file_outside_is_refused_by_name_and_used_when_allowed(root: Path, kind: str) -> None:
    link(root / "Amphiprion_clarkii" / "9.png", root.parent / "store" / "Chromis_viridis" / "0.png")
    if kind == "table":
        names = [f"Amphiprion_clarkii/{i}.png,Amphiprion,clarkii" for i in (0, 1, 2, 9)]
        (root / "metadata.csv").write_text("\n".join(["file_name,genus,species", *names]) + "\n")
    with pytest.raises(DataError, match=r"1 × .*--follow-links"):
        ready(root)
    assert ready(root, max_bad_fraction=0.5).report.reasons == {LEAVES_ROOT: 1}
    shutil.rmtree(root.parent / "out")
    dataset = ready(root, follow_links=True)
    assert (len(dataset), dataset.image(3, 8).shape) == (4, (3, 8, 8))


def test_a_table_in_a_folder_that_is_a_link(root: Path) -> None:
    """A linked split of an image folder: its file names lie below the link."""
    train = root.parent / "elsewhere"
    draw(train)
    (train / "metadata.csv").write_text("file_name,genus,species\n0.png,Amphiprion,clarkii\n1.png,Amphiprion,clarkii\n")
    link(root / "train", train)
    assert rows(root)[0] == ["train/0.png", "train/1.png"]
    with pytest.raises(DataError, match="2 × the path leaves the image root through a link"):
        ready(root)
    dataset = ready(root, follow_links=True)
    assert [dataset.record(row).split for row in dataset.rows()] == ["train", "train"]


def test_class_folders_of_inaturalist_obey_the_same_rule(tmp_path: Path) -> None:
    name = "02912_Animalia_Chordata_Actinopterygii_Perciformes_Pomacentridae_Amphiprion_{}"
    draw(tmp_path / "photos" / "train" / name.format("clarkii"))
    draw(tmp_path / "store")
    link(tmp_path / "photos" / "train" / name.format("ocellaris"), tmp_path / "store")
    link(tmp_path / "photos" / "val", "train")
    link(tmp_path / "photos" / "test", ".")
    pictures, refused = rows(tmp_path / "photos")
    assert len(pictures) == 6  # train, and the same below val
    assert set(refused.values()) == {FOLDER_LEAVES_ROOT}
    assert len(rows(tmp_path / "photos", follow_links=True)[0]) == 12


def test_a_stopped_run_that_followed_links_allows_nothing_to_the_next(root: Path) -> None:
    link(root / "Amphiprion_clarkii" / "9.png", root.parent / "store" / "Chromis_viridis" / "0.png")

    def stop(progress: Any) -> None:
        if progress.phase == "write":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ready(root, follow_links=True, on_progress=stop)
    assert ready(root, max_bad_fraction=0.5).report.reasons == {LEAVES_ROOT: 1}


def test_devices_and_pipes_stay_refused(root: Path) -> None:
    link(root / "Amphiprion_clarkii" / "zero.png", "/dev/zero")
    os.mkfifo(root.parent / "pipe")
    link(root / "Amphiprion_clarkii" / "pipe.png", root.parent / "pipe")
    report = ready(root, follow_links=True, max_bad_fraction=0.5).report
    assert report.reasons == {"the path is not a regular file": 2}


# Every walk ends


@pytest.mark.parametrize("follow_links", [False, True])
def test_cycles_of_links_end_and_are_counted(root: Path, follow_links: bool) -> None:
    folder = root / "Amphiprion_clarkii"
    link(root / "Self_same", ".")
    link(folder / "up", "..")
    link(folder / "here", ".")
    link(folder / "a" / "b", "../c")
    link(folder / "c" / "a", "../a")
    link(folder / "loop.png", "loop.png")
    Image.new("RGB", (16, 16), (9, 9, 9)).save(folder / "c" / "x.png")
    reader = open_reader(root, follow_links=follow_links)
    found = list(reader)
    assert [item.image for item in found if isinstance(item, Record)] == [
        *(f"Amphiprion_clarkii/{i}.png" for i in range(3)), "Amphiprion_clarkii/c/x.png", "Amphiprion_clarkii/loop.png",
    ]  # fmt: skip
    assert [item for item in found if isinstance(item, Rejected)] == []
    assert reader.counts[PASSED_OVER] == 5  # type: ignore[attr-defined]
    if not follow_links:
        link(root / "Parent_dir", "..")
        assert rows(root)[1] == {}  # it leads back above the root: no folder of its own


# What stands for a folder and is none


def test_links_that_lead_nowhere_are_named(root: Path) -> None:
    link(root / "Chromis_viridis", "/store/that/is/not/mounted")
    link(root / "Amphiprion_clarkii" / "more", "gone")
    link(root / "Amphiprion_clarkii" / ".#lock", "user@host:1")
    link(root / "notes.txt", "gone.txt")
    assert rows(root)[1] == {"Chromis_viridis": LEADS_NOWHERE, "Amphiprion_clarkii/more": LEADS_NOWHERE}
    with pytest.raises(DataError, match=LEADS_NOWHERE):
        ready(root, max_bad_fraction=1.0)


def test_links_that_were_copied_as_text_are_named(root: Path) -> None:
    """As by a checkout or an archiver that makes no links."""
    (root / "Chromis_viridis").write_text("../store/Chromis_viridis")
    assert rows(root)[1] == {"Chromis_viridis": FOLDER_AS_TEXT}
    (root / "Chromis_viridis").unlink()
    (root / "LICENSE").write_text("See https://creativecommons.org/licenses/by/4.0/\n")
    (root / "Amphiprion_clarkii" / "3.png").write_text("../../store/Chromis_viridis/0.png")
    assert ready(root, max_bad_fraction=0.5).report.reasons == {FILE_AS_TEXT: 1}


# check


def test_check_says_what_prepare_would(root: Path) -> None:
    link(root / "Zanclus_cornutus", root.parent / "store" / "Zanclus_cornutus")
    link(root / "Amphiprion_clarkii" / "7.png", "gone.png")
    link(root / "Amphiprion_clarkii" / "9.png", root.parent / "store" / "Chromis_viridis" / "0.png")
    report = inspect_source(root)
    assert report.rejected_reasons == {FOLDER_LEAVES_ROOT: 1}
    assert report.picture_faults == {"the file is missing": 1, LEAVES_ROOT: 1}
    assert report.pictures_missing == 1
    assert [fault.value for fault in report.faulty_pictures] == ["Amphiprion_clarkii/7.png", "Amphiprion_clarkii/9.png"]
    assert inspect_source(root, CheckSettings(follow_links=True)).picture_faults == {"the file is missing": 1}
    assert inspect_source(root, CheckSettings(tables_only=True)).picture_faults == {}
    shown = CliRunner().invoke(app, ["check", str(root)], env={"COLUMNS": "300"}).output
    assert "Amphiprion_clarkii/9.png" in shown
    assert "Zanclus_cornutus" in shown
    assert "--follow-links" in shown
    allowed = CliRunner().invoke(app, ["check", str(root), "--follow-links"], env={"COLUMNS": "300"})
    assert (allowed.exit_code, "--follow-links" in allowed.output) == (0, False)


def test_a_prepared_set_keeps_its_own_rule(root: Path) -> None:
    ready(root)
    with pytest.raises(SettingsError, match="--follow-links"):
        inspect_source(root.parent / "out", CheckSettings(follow_links=True))


# As people have them


def linked_again(shared: Path, tmp_path: Path, case: str) -> Path:
    """The case beside its store, with the links made that it holds as text."""
    fields = shared / "cases" / "field"
    if not (fields / case).is_dir():
        pytest.skip(f"needs cases/field/{case} in ../shared")
    for name in (case, "f-symlink-store"):
        shutil.copytree(fields / name, tmp_path / name)
    for path in sorted((tmp_path / case).rglob("*")):
        if path.is_file() and path.stat().st_size < 100 and "/" in path.read_text():
            target = path.read_text()
            path.unlink()
            path.symlink_to(target)
    return tmp_path / case


@pytest.mark.parametrize(("case", "num_images"), [("f-symlink", 12), ("f-symlink-files", 6)])
def test_linked_stores_as_labs_have_them(shared: Path, tmp_path: Path, case: str, num_images: int) -> None:
    source = linked_again(shared, tmp_path, case)
    done = CliRunner().invoke(app, ["prepare", str(source), str(tmp_path / "out"), "--workers", "1"])
    assert done.exit_code != 0
    assert "--follow-links" in str(done.exception)
    assert "--follow-links" in CliRunner().invoke(app, ["check", str(source)], env={"COLUMNS": "300"}).output
    report = prepare(source, tmp_path / "out", PrepareSettings(follow_links=True), num_workers=1)
    assert (report.images, report.quarantined) == (num_images, 0)


def test_a_nested_folder_is_rejected_with_its_reason(shared: Path, tmp_path: Path) -> None:
    source = linked_again(shared, tmp_path, "f-symlink-inside")
    with pytest.raises(DataError, match="9 × folder 'all' is not a name"):
        prepare(source, tmp_path / "out", num_workers=1)
