"""Laws of the filter learnt from judgements, of the table it learns from, and of drawing until pictures pass."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.errors import CheckpointError, DataError, SettingsError
from taxadiffusion.evaluate.accepted import CANDIDATES, JUDGED, Accepting, accepted
from taxadiffusion.evaluate.filter import Filter, fit_filter
from taxadiffusion.evaluate.judgements import COLUMNS, PAIR_COLUMNS, read_judgements, sha256_of_file
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.names import RANKS, Lineage
from taxadiffusion.pictures.generate import Generated
from taxadiffusion.sampler import Request
from tests.coloured_pictures import SPECIES, Colours, fresh

TAXA = list(SPECIES)


def judged_features(number: int, noise: float, seed: int = 0) -> tuple[np.ndarray, list[bool], list[Lineage]]:
    """Features of which the first decides, but for a share `noise` of judgements that go the other way."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((number, 6)).astype(np.float32)
    passed = (features[:, 0] > 0) ^ (rng.random(number) < noise)
    return features, passed.tolist(), [TAXA[i % len(TAXA)] for i in range(number)]


def test_a_filter_agrees_as_often_as_it_says_with_judgements_that_it_never_saw() -> None:
    features, passed, lineages = judged_features(160, 0.1)
    found = fit_filter(features, passed, lineages, Colours(), 64)
    others, theirs, _ = judged_features(2000, 0.1, seed=1)
    agrees = (found.accepts(others) == np.array(theirs)).mean()
    assert agrees > 0.8
    assert found.agreement.low <= agrees <= found.agreement.high
    assert found.agreement.low <= found.agreement.share <= found.agreement.high
    assert found.num_passed == sum(passed)
    assert found.num_failed == len(passed) - sum(passed)


def test_judgements_at_random_are_agreed_with_no_more_than_by_chance() -> None:
    features, passed, lineages = judged_features(120, 0.5)
    found = fit_filter(features, passed, lineages, Colours(), 64)
    assert found.agreement.low < 0.6
    assert found.agreement.commoner == max(sum(passed), 120 - sum(passed)) / 120


def test_a_filter_is_read_as_it_was_written_and_nothing_else_is(tmp_path: Path) -> None:
    features, passed, lineages = judged_features(60, 0.0)
    found, file = fit_filter(features, passed, lineages, Colours(), 64), tmp_path / "filter.json"
    found.write(file)
    assert Filter.read(file) == found
    document = json.loads(file.read_text())
    assert (document["schema"], document["extractor"]) == (1, "colours")
    for change in ({"schema": 2}, {"scale": [0.0] * 6}, {"mean": [0.0] * 5}, {"threshold": 2}, {"extra": 1}):
        file.write_text(json.dumps(document | change))
        with pytest.raises(CheckpointError, match="is no filter"):
            Filter.read(file)
    with pytest.raises(SettingsError, match="reads 6 features"):
        found.probabilities(np.zeros((2, 5)))
    other = Colours()
    other.content_hash = "e" * 64
    with pytest.raises(SettingsError, match="another network"):
        Accepting(found, other)
    with pytest.raises(SettingsError, match=f"pictures of {found.size_px} px, and these are of 16 px"):
        found.require(Colours(), 16)


def test_too_few_judgements_of_a_kind_are_refused() -> None:
    features, _, lineages = judged_features(40, 0.0)
    with pytest.raises(DataError, match="9 pictures passed and 31 failed"):
        fit_filter(features, [i < 9 for i in range(40)], lineages, Colours(), 64)


def write_table(path: Path, columns: Sequence[str], rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, columns, restval="")
        table.writeheader()
        table.writerows(rows)
    return path


def test_judgements_are_of_the_pictures_as_they_were_seen(tmp_path: Path) -> None:
    folder = fresh(tmp_path / "made", 0, ("species",), per_taxon=2)
    pictures = generated_folder(folder, RANKS)
    files = sorted(path.name for path in folder.glob("*.png"))
    rows = [
        {"file": name, "sha256": sha256_of_file(folder / name), "verdict": verdict}
        for name, verdict in zip(files, ("pass", "fail", "undecided", "pass"), strict=False)
    ]
    again = {**rows[0], "verdict": "fail"}  # judged a second time
    found = read_judgements(write_table(tmp_path / "j.csv", COLUMNS, [*rows, again]), pictures, folder)
    judged = dict(zip((Path(pictures.files[i]).name for i in found.positions), found.passed, strict=True))
    assert judged == {files[0]: False, files[1]: False, files[3]: True}
    assert (found.undecided, found.fooled) == (1, False)
    pairs = read_judgements(write_table(tmp_path / "p.csv", PAIR_COLUMNS, rows), pictures, folder)
    assert pairs.fooled
    for wrong, message in (
        ({"file": "../x.png"}, "row 2: '../x.png' is no picture"),
        ({"sha256": "0" * 64}, "has changed since"),
        ({"verdict": "perhaps"}, "'perhaps' is none of pass, fail, undecided"),
    ):
        with pytest.raises(DataError, match=message):
            read_judgements(write_table(tmp_path / "w.csv", COLUMNS, [rows[0] | wrong]), pictures, folder)
    with pytest.raises(DataError, match="its columns are not"):
        read_judgements(write_table(tmp_path / "w.csv", ("file", "verdict"), []), pictures, folder)


def test_pictures_are_drawn_until_enough_pass_and_every_refusal_is_counted(tmp_path: Path) -> None:
    """Of the first taxon every third seed is bright, of the second none."""
    bright, dark = TAXA[0], TAXA[1]
    drawn: list[Request] = []

    def make(requests: Sequence[Request], folder: Path) -> list[Generated]:
        table = folder / "metadata.csv"
        rows = list(csv.DictReader(table.open())) if table.is_file() else []
        made = []
        for request in requests:
            drawn.append(request)
            path = folder / f"{TAXA.index(request.lineage)}-{request.seed}.png"
            path.parent.mkdir(exist_ok=True)
            level = 250 if request.lineage == bright and request.seed % 3 == 0 else 5
            Image.new("RGB", (16, 16), (level,) * 3).save(path)
            made.append(Generated(request, path, True))
            if path.name not in {row["file_name"] for row in rows}:
                rows.append({"file_name": path.name, "seed": str(request.seed)})
        write_table(table, ("file_name", "seed"), rows)
        return made

    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, 60)
    images = np.repeat(levels, 3 * 16 * 16).reshape(60, 3, 16, 16).astype(np.uint8)
    learnt = fit_filter(Colours()(images), (levels > 128).tolist(), [bright] * 60, Colours(), 16)
    out = tmp_path / "made"
    for _ in range(2):  # a second call finds what the first one left
        drawn.clear()
        accepting = Accepting(learnt, Colours(), tries=4)
        found = accepted(make, Request, [bright, dark], range(10, 12), out, accepting)
        assert {request.seed for request in drawn if request.lineage == bright} == {10, 11, 12, 13, 14, 15}
        assert len(drawn) == len(set(drawn)), "nothing is drawn twice"
        assert [picture.request.seed for picture in found.pictures] == [12, 15]
        assert found.drawn == {bright: 6, dark: 8}
        assert found.refused == {bright: 4, dark: 8}
        assert sorted(path.name for path in out.glob("*.png")) == ["0-12.png", "0-15.png"]
        with (out / "metadata.csv").open() as stream:
            assert [row["file_name"] for row in csv.DictReader(stream)] == ["0-12.png", "0-15.png"]
        with (out.with_name("made" + CANDIDATES) / JUDGED).open() as stream:
            verdicts = [row["accepted"] for row in csv.DictReader(stream)]
        assert (verdicts.count("yes"), verdicts.count("no")) == (2, 12)
