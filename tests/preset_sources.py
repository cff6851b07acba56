"""Sources of the shapes that the presets' data sets are published in: few rows, the real layouts, tiny pictures."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tests import bioscan_sources as bioscan
from tests import fishnet_sources as fishnet
from tests import inaturalist_sources as inaturalist
from tests import treeoflife_sources as treeoflife

KINGDOM = {"kingdom": "Animalia", "phylum": "Chordata", "class": "Actinopterygii", "order": "Perciformes"}
SPECIES = {
    "Thalassoma lunare": ("Labridae", 32),
    "Thalassoma hardwicke": ("Labridae", 16),
    "Zanclus cornutus": ("Zanclidae", 4),
}
"""Binomial → family and training photographs; each has two more in every other split."""


def jpeg(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def write_picture(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(jpeg(seed))


def photographs(*splits: str, times: int = 1) -> Iterator[tuple[int, str, str, str, str]]:
    """(number, split, family, genus, epithet): in the first of `splits` as many as stated, `times`; else two."""
    number = 0
    for binomial, (family, count) in SPECIES.items():
        genus, epithet = binomial.split()
        for split in splits:
            for _ in range(count * times if split == splits[0] else 2):
                yield number, split, family, genus, epithet
                number += 1


def fishnet_source(root: Path) -> Path:
    """Train and test tables; one half from FishBase with binomial and URL, one from iNaturalist without species."""
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for number, split, family, genus, epithet in photographs("train", "test"):
        name = f"{number}.jpg"
        write_picture(root / "Images" / family / name, number)
        known = number % 4 or split == "test"
        image = f"https://www.fishbase.se/images/species/{name}" if known else name
        rows[split].append(
            fishnet.make_row(image, species=f"{genus} {epithet}" if known else "", genus=genus, family=family)
        )
        (root / "Images" / family / f"{number}.txt").write_text(f"{family} 1 2 20 22 \n")
    for split, lines in rows.items():
        fishnet.write_table(root, *lines, name=f"{split}.csv")
    return root


def bioscan_source(root: Path) -> Path:
    root.mkdir(parents=True)
    rows = []
    with zipfile.ZipFile(root / "cropped_256.zip", "w") as archive:
        for number, split, family, genus, epithet in photographs("train", "validation", "test"):
            archive.writestr(f"bioscan/images/cropped_256/part18/{number}.jpg", jpeg(number))
            row = {"image_file": f"{number}.jpg", "sampleid": str(number), "large_insect_order": split}
            rows.append(row | {"family": family, "genus": genus, "species": f"{genus} {epithet}"})
    bioscan.write_1m(root, rows)
    return root


def inaturalist_source(root: Path) -> Path:
    categories: list[dict[str, object]] = []
    images: dict[str, list[dict[str, object]]] = {"train": [], "val": []}
    pairs: dict[str, list[tuple[object, object]]] = {"train": [], "val": []}
    for binomial, (family, _) in SPECIES.items():
        genus, epithet = binomial.split()
        folder = f"{len(categories):05d}_{'_'.join(KINGDOM.values())}_{family}_{genus}_{epithet}"
        names = {**KINGDOM, "family": family, "genus": genus, "specific_epithet": epithet, "name": binomial}
        categories.append({"id": len(categories), "image_dir_name": folder, **names})
    for number, split, _, genus, epithet in photographs("train", "val"):
        category = next(entry for entry in categories if entry["name"] == f"{genus} {epithet}")
        name = f"{split}/{category['image_dir_name']}/{number}.jpg"
        write_picture(root / name, number)
        images[split].append({"id": number, "file_name": name})
        pairs[split].append((number, category["id"]))
    for split in images:
        inaturalist.write_json(root / f"{split}.json", categories, images[split], pairs[split])
    return root


def treeoflife_source(root: Path) -> Path:
    samples: dict[str, dict[str, str | bytes]] = {}
    rows = []
    for number, split, family, genus, epithet in photographs("train", "val"):
        samples[f"uuid-{number}"] = {"jpg": jpeg(number), "com.txt": b"fish"}
        rows.append(f"{split},uuid-{number},,,,,,,,{','.join(KINGDOM.values())},{family},{genus},{epithet},fish")
    treeoflife.write_shard(root / "dataset/EOL/shard-000000.tar", samples)
    treeoflife.write_catalog(root, *(row.replace("Animalia", "Metazoa") for row in rows))
    return root


def gbif_source(root: Path) -> Path:
    """Occurrences and multimedia; the pictures as the documentation says to save them: the md5 of the URL."""
    root.mkdir(parents=True)
    occurrences = ["\t".join(["gbifID", *KINGDOM, "family", "genus", "species", "scientificName"])]
    media = ["gbifID\ttype\tformat\tidentifier"]
    for number, _, family, genus, epithet in photographs("train", times=4):
        names = [*KINGDOM.values(), family, genus, f"{genus} {epithet}", f"{genus} {epithet} (Linnaeus, 1758)"]
        occurrences.append("\t".join([str(number), *names]))
        url = f"https://example.org/photos/{number}/original"
        media.append(f"{number}\tStillImage\timage/jpeg\t{url}")
        name = hashlib.md5(url.encode(), usedforsecurity=False).hexdigest()
        write_picture(root / "media" / f"{name}.jpg", number)
    (root / "occurrence.txt").write_text("\n".join(occurrences) + "\n")
    (root / "multimedia.txt").write_text("\n".join(media) + "\n")
    return root


def reef_fish_source(root: Path) -> Path:
    """Folders by split and species beside a table, as in ../shared/data/reef-fish."""
    return _image_folder(root, "family")


def butterflies_source(root: Path) -> Path:
    """The same with subfamilies, as in ../shared/data/butterflies."""
    return _image_folder(root, "family,subfamily")


def _image_folder(root: Path, families: str) -> Path:
    header = f"file_name,split,trajectory,kingdom,phylum,class,order,{families},genus,specific_epithet,scientific_name"
    lines = [f"{header},width,height"]
    for number, split, family, genus, epithet in photographs("train", "test"):
        name = f"{split}/{genus}_{epithet}/{number}.jpg"
        write_picture(root / name, number)
        above = [family, f"{family.removesuffix('idae')}inae"][: len(families.split(","))]
        names = [*KINGDOM.values(), *above, genus, epithet, f"{genus} {epithet}"]
        lines.append(",".join([name, split, f"track{number}", *names, "32", "24"]))
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    return root
