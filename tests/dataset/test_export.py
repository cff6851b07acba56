"""A prepared set that goes out and comes back is the same set: the same pictures under the same taxa."""

from __future__ import annotations

import base64
import csv
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.dataset.export import TARGETS, export
from taxadiffusion.dataset.export_tree import newick
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage
from tests import bioscan_sources as bioscan
from tests import fishnet_sources as fishnet
from tests.taxa import taxonomy_of


def picture(path: Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def folder_source(root: Path) -> Path:
    rows = [
        ("a.png", "Ovalentaria/misc", "Labridae", "Hypsigenyinae", "Thalassoma", "lunare", "g1", "5,5,10,10"),
        ("a.png", "Ovalentaria/misc", "Labridae", "Hypsigenyinae", "Thalassoma", "lunare", "g1", "0,0,20,20"),
        ("b.jpg", "Ovalentaria/misc", "Labridae", "", "Thalassoma", "v-nigrum: x", "g1", ",,,"),
        ("c.webp", "طائر", "Quoted'idae", "", "", "", "g2", ",,,"),
        ("d.gif", "Éric", "", "", "", "", "", ",,,"),
    ]
    header = "file_name,order,family,subfamily,genus,species,group,box_x,box_y,box_width,box_height,split"
    lines = [header, *(",".join([*row, "test" if row[0] == "d.gif" else "train"]) for row in rows)]
    root.mkdir(parents=True)
    (root / "metadata.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for i, name in enumerate(("a.png", "b.jpg", "c.webp", "d.gif")):
        picture(root / name, i)
    return root


def fishnet_source(root: Path) -> Path:
    fishnet.write_table(root, fishnet.make_row("a.jpg", genus="Diplodus"), name="train.csv")
    fishnet.write_table(root, fishnet.make_row("https://x.org/b.jpg", "Sparus aurata"))
    picture(root / "Images/Sparidae/a.jpg", 1)
    picture(root / "Images/Sparidae/b.jpg", 2)
    (root / "Images/Sparidae/a.txt").write_text("Sparidae 1 2 20 22 \n")
    return root


def bioscan_source(root: Path) -> Path:
    root.mkdir()
    rows = [{"image_file": f"{i}.jpg", "family": "Muscidae", "genus": "Musca", "sampleid": str(i)} for i in range(3)]
    bioscan.write_1m(root, rows)
    with zipfile.ZipFile(root / "cropped_256.zip", "w") as archive:
        for i in range(3):
            picture(root / "new.jpg", i)
            archive.write(root / "new.jpg", f"bioscan/images/cropped_256/part18/{i}.jpg")
    (root / "new.jpg").unlink()
    return root


def inaturalist_source(root: Path) -> Path:
    name = "02912_Animalia_Chordata_Actinopterygii_Siluriformes_Ictaluridae_Ameiurus_nebulosus"
    for i, split in enumerate(("train", "val")):
        picture(root / split / name / f"{i}.jpg", i)
    return root


def darwincore_source(root: Path) -> Path:
    root.mkdir()
    (root / "occurrence.txt").write_text(
        "gbifID\tfamily\tscientificName\n1\tApidae\tApis mellifera L., 1758\n2\tApidae\tApidae\n"
    )
    (root / "multimedia.txt").write_text(
        "gbifID\ttype\tidentifier\n1\tStillImage\ta.jpg\n1\tStillImage\tb.jpg\n2\tStillImage\tc.jpg\n"
    )
    for i, file_name in enumerate("abc"):
        picture(root / f"{file_name}.jpg", i)
    return root


SOURCES = (folder_source, fishnet_source, bioscan_source, inaturalist_source, darwincore_source)


def prepared(source: Path, out: Path) -> PreparedDataset:
    report = prepare(source, out, num_workers=1)
    assert report.quarantined == 0, report.reasons
    return PreparedDataset.open(out)


def contents(dataset: PreparedDataset) -> Counter[tuple[object, ...]]:
    records = [dataset.record(row) for row in range(len(dataset))]
    return Counter((r.sha256, dataset.lineage(i), r.split, r.group, r.box) for i, r in enumerate(records))


@pytest.mark.parametrize("target", ["imagefolder", "webdataset"])
@pytest.mark.parametrize("make_source", SOURCES)
def test_out_and_back_gives_the_same_taxa_and_images(
    tmp_path: Path, make_source: Callable[[Path], Path], target: str
) -> None:
    first = prepared(make_source(tmp_path / "source"), tmp_path / "first")
    written = export(first, tmp_path / "exported", target)
    again = prepared(tmp_path / "exported", tmp_path / "again")
    assert written.num_items == len(first) == len(again)
    assert contents(again) == contents(first)
    assert again.taxonomy == first.taxonomy


def test_the_image_folder_is_hugging_faces(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs datasets, of the extra [dev]")
    first = prepared(fishnet_source(tmp_path / "source"), tmp_path / "first")
    export(first, tmp_path / "exported", "imagefolder")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "exported"), cache_dir=str(tmp_path / "cache")
    )
    assert {split: len(rows) for split, rows in loaded.items()} == {"train": 1, "test": 1}
    assert loaded["test"][0]["scientific_name"] == "Sparus aurata"


def test_equal_sets_give_equal_shards(tmp_path: Path) -> None:
    first = prepared(folder_source(tmp_path / "source"), tmp_path / "first")
    for name in ("one", "two"):
        export(first, tmp_path / name, "webdataset")
    shards = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.tar"))
    assert len(shards) == 2
    for shard in shards:
        assert (tmp_path / "one" / shard).read_bytes() == (tmp_path / "two" / shard).read_bytes()


def _read_newick(text: str) -> dict[str, str | None]:
    """label → parent's label."""
    tokens = re.findall(r"'(?:[^']|'')*'|[(),;]", text)
    parents: dict[str, str | None] = {}
    stack: list[list[str]] = [[]]
    for before, token in zip(["", *tokens], tokens, strict=False):
        if token == "(":
            stack.append([])
        elif token == ")":
            children = stack.pop()
        elif token.startswith("'"):
            label = token[1:-1].replace("''", "'")
            for child in children if before == ")" else ():
                parents[child] = label
            stack[-1].append(label)
    if before == ")":  # the joint root has no name
        return {**dict.fromkeys(children), **parents}
    return {**dict.fromkeys(stack[0]), **parents}


def test_newick_holds_the_tree() -> None:
    lineages = [
        Lineage.of({"order": "A/misc", "family": "F'x", "genus": "Aus", "species": "bus"}),
        Lineage.of({"order": "A/misc", "family": "F'x", "genus": "Aus", "species": "cus"}),
        Lineage.of({"order": "B (sic), s; [x]"}),
    ]
    taxonomy = taxonomy_of(lineages, ("order", "family", "genus", "species"))
    text = "".join(newick(taxonomy))
    expected = {
        taxonomy.lineage(t).label: None if (p := taxonomy.parent(t)) is None else taxonomy.lineage(p).label
        for t in range(len(taxonomy))
    }
    assert _read_newick(text) == expected


def test_the_table_of_taxa_counts_images_of_subtrees(tmp_path: Path) -> None:
    first = prepared(folder_source(tmp_path / "source"), tmp_path / "first")
    export(first, tmp_path / "taxa.csv", "csv")
    with (tmp_path / "taxa.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["taxon_id"]) for row in table] == list(range(len(first.taxonomy)))
    rows = {row["label"]: row for row in table}
    assert (rows["Ovalentaria/misc"]["images_train"], rows["Éric"]["images_test"]) == ("3", "1")
    assert rows["Thalassoma lunare"]["order"] == "Ovalentaria/misc"
    assert rows[rows["Labridae"]["label"]]["parent_id"] == rows["Ovalentaria/misc"]["taxon_id"]


def test_the_page_is_self_contained_with_a_photograph_for_every_taxon(tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="needs the extra [viz]")
    first = prepared(folder_source(tmp_path / "source"), tmp_path / "first")
    export(first, tmp_path / "tree.html", "html")
    page = (tmp_path / "tree.html").read_text(encoding="utf-8")
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)=[\"']https?:", page)
    found = re.search(r"const shownFor = (\[.*?\]), pictures = (\{.*?\});", page)
    assert found
    shown_for, pictures = json.loads(found[1]), json.loads(found[2])
    assert len(shown_for) == len(first.taxonomy)
    for taxon_id, row in enumerate(shown_for):
        assert (
            first.taxonomy.lineage(taxon_id).names
            == first.lineage(row).names[: len(first.taxonomy.lineage(taxon_id).names)]
        )
        assert base64.b64decode(pictures[str(row)].split(",")[1]).startswith(b"\xff\xd8")
    assert "Quoted&#x27;idae" in page or "Quoted\\u0026#x27;idae" in page


def test_nothing_is_overwritten_and_targets_are_checked(tmp_path: Path) -> None:
    first = prepared(fishnet_source(tmp_path / "source"), tmp_path / "first")
    for target in TARGETS:
        with pytest.raises(SettingsError, match="exists"):
            export(first, tmp_path / "source", target)
    with pytest.raises(SettingsError, match="imagefolder"):
        export(first, tmp_path / "new", "parquet")


def test_an_image_that_is_gone_leaves_nothing_half_written(tmp_path: Path) -> None:
    first = prepared(fishnet_source(tmp_path / "source"), tmp_path / "first")
    (tmp_path / "source/Images/Sparidae/b.jpg").unlink()
    with pytest.raises(DataError, match=r"b\.jpg"):
        export(first, tmp_path / "out", "imagefolder")
    assert not (tmp_path / "out").exists()
