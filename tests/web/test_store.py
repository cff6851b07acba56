"""Laws of the store: bounded, found again after a restart, one server's at a time."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.errors import CheckpointError
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.png import save_picture
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.store import Store, archive
from tests.site_taxa import CORNUTUS, RANKS

MODEL = "a" * 64


def recipe(lineage: Lineage, seed: int = 0, **others: str) -> dict[str, str]:
    names = {rank: lineage.get(rank) or "" for rank in RANKS}
    return names | {
        "scientific_name": lineage.label, "seed": str(seed), "model_sha256": MODEL, "software": "test",
        "source_taxon_id": "", "guidance_scale": "6", "guidance_rank": "unconditional", "num_steps": "25",
        "towards": "", **others,
    }  # fmt: skip


def put(folder: Path, number: int, made: dict[str, str]) -> Path:
    path = folder / f"fish-{made['seed']}-{number:010x}.png"
    save_picture(np.full((3, 8, 8), number, np.uint8), path, made)
    return path


def opened(folder: Path, **limits: int) -> Store:
    return Store(folder, RANKS, MODEL, Limits(**limits))


def test_pictures_are_there_again_after_a_restart_but_those_of_another_model_are_not_shown(tmp_path: Path) -> None:
    store = opened(tmp_path)
    made = recipe(CORNUTUS)
    assert store.add(put(tmp_path, 1, made), made) == "0000000001"
    store.close()
    put(tmp_path, 2, recipe(CORNUTUS, model_sha256="b" * 64))
    (tmp_path / "note-0-0000000003.png").write_bytes(b"no picture")
    for number, bad in enumerate(
        ({"seed": "x"}, {"guidance_rank": ""}, {"towards": "colour: red"}, {"num_steps": "9" * 5000}), 4
    ):
        put(tmp_path, number, recipe(CORNUTUS) | bad)
    again = opened(tmp_path)
    kept = again.get("0000000001")
    assert kept is not None
    assert kept.recipe == made
    assert kept.lineage == CORNUTUS
    assert [one.id for one in again.latest(9)] == ["0000000001"]
    again.close()


def test_two_servers_do_not_share_a_folder(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(CheckpointError, match="another server"):
        opened(tmp_path)
    store.close()
    opened(tmp_path).close()


def test_the_longest_unseen_leave_first_and_those_in_use_stay(tmp_path: Path) -> None:
    store = opened(tmp_path, store_pictures=2)
    paths = {}
    for number in range(1, 5):
        made = recipe(CORNUTUS, number)
        paths[number] = put(tmp_path, number, made)
        store.add(paths[number], made)
    store.get("0000000001")  # looked at
    assert store.shrink(frozenset({"0000000002"})) == 2
    assert {number for number, path in paths.items() if path.is_file()} == {1, 2}
    assert store.get("0000000003") is None
    store.close()
    by_size = opened(tmp_path, store_bytes=1)
    assert by_size.shrink() == 2
    by_size.close()


def test_a_strip_is_of_one_seed_and_the_same_settings(tmp_path: Path) -> None:
    store = opened(tmp_path)
    order = CORNUTUS.truncated("order")
    for number, made in enumerate(
        [recipe(order, 1), recipe(CORNUTUS, 1), recipe(CORNUTUS, 2), recipe(order, 2, guidance_scale="9")], 1
    ):
        store.add(put(tmp_path, number, made), made)
    found = [None if kept is None else kept.id for kept in store.strip(CORNUTUS)]
    assert found == ["0000000001", None, None, "0000000002"]
    for number in (5, 6):
        made = recipe((order, CORNUTUS)[number - 5], 3)
        store.add(put(tmp_path, number, made), made)
    store.get("0000000001")  # looking at one asks for nothing
    found = [None if kept is None else kept.id for kept in store.strip(CORNUTUS)]
    assert found == ["0000000005", None, None, "0000000006"]
    assert [kept.id for kept in store.of_taxon(CORNUTUS)] == ["0000000006", "0000000003", "0000000002"]
    store.close()


def test_an_archive_holds_the_files_as_they_are_and_a_row_for_each(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for number in (1, 2):
        made = recipe(CORNUTUS, number)
        store.add(put(tmp_path, number, made), made)
    kept = store.latest(2)
    with zipfile.ZipFile(io.BytesIO(archive(kept))) as bundle:
        rows = list(csv.DictReader(io.StringIO(bundle.read("metadata.csv").decode())))
        for one, row in zip(kept, rows, strict=True):
            assert bundle.read(row.pop("file_name")) == one.path.read_bytes()
            assert row == one.recipe
    store.close()
