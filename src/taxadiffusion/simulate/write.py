"""A simulated clade on disk: an image folder with its table, the true traits beside it, the tree and a note."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import RANKS, Rank
from taxadiffusion.simulate.captions import caption
from taxadiffusion.simulate.clade import DEFAULT_RANKS, Clade
from taxadiffusion.simulate.draw import dive_of, photograph
from taxadiffusion.simulate.pose import Pose

SPLITS: tuple[tuple[str, float], ...] = (("test", 0.15), ("val", 0.10))  # the rest trains
MIN_IMAGES = 8  # of the rarest species: four dives
ZIPF_EXPONENT = 0.9


@dataclass(frozen=True, slots=True)
class Simulated:
    """What `simulate` wrote."""

    path: Path
    clade: Clade
    num_images: tuple[int, ...]  # per species, in the clade's order


@dataclass(frozen=True, slots=True)
class _Row:
    """One image: where it is, which species it shows, how it was taken."""

    file_name: str
    species: int
    index: int
    split: str
    pose: Pose


def image_counts(num_species: int, num_images: int, seed: int) -> tuple[int, ...]:
    """Long-tailed numbers of images per species (Zipf's law above a floor of `MIN_IMAGES`), adding up to `num_images`.

    Raises `SettingsError` where there are too few images for the floor.
    """
    spare = num_images - MIN_IMAGES * num_species
    if spare < 0:
        raise SettingsError(
            f"{num_images} images are too few for {num_species} species; each needs {MIN_IMAGES}, so ask for "
            f"{MIN_IMAGES * num_species} or more"
        )
    shares = np.arange(1, num_species + 1, dtype=np.float64) ** -ZIPF_EXPONENT
    edges = np.round(np.cumsum(shares) / shares.sum() * spare).astype(np.int64)
    counts = MIN_IMAGES + np.diff(edges, prepend=0)
    return tuple(int(count) for count in np.random.default_rng([seed, 4]).permutation(counts))


def split_of(index: int, num_images: int) -> str:
    """The split of a species' image `index` of `num_images`: the last dives are test, those before them validation."""
    last = dive_of(num_images - 1)
    num_dives = last + 1
    from_end = last - dive_of(index)
    for name, share in SPLITS:
        size = max(1, round(share * num_dives))
        if from_end < size:
            return name
        from_end -= size
    return "train"


def read_clade(folder: Path) -> Clade:
    """The clade that `simulate` drew in `folder`, grown again from its recipe. Raises `DataError`."""
    path = folder / "clade.json"
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
        seed, num_species, ranks = int(recipe["seed"]), int(recipe["num_species"]), tuple(recipe["ranks"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no recipe of a simulated clade ({error}); give the folder that `simulate` wrote"
        ) from error
    if any(rank not in RANKS for rank in ranks):
        raise DataError(f"{path}: unknown ranks {', '.join(map(str, ranks))}")
    return Clade.grow(seed, num_species, ranks)


def simulate(
    out: Path,
    *,
    seed: int = 0,
    num_species: int = 24,
    num_images: int = 2400,
    size_px: int = 64,
    ranks: Sequence[Rank] = DEFAULT_RANKS,
    on_image: Callable[[int, int], None] | None = None,
) -> Simulated:
    """Grow a clade and write it as an image folder at `out`, a new or empty folder.

    `metadata.csv` follows the Hugging Face image folder convention (file_name, split, one column per rank,
    scientific_name, group); `traits.parquet` holds for each image the true traits of its species, its pose and light
    and a caption without names, `ancestors.parquet` the true traits of each ancestor that `Clade.ancestors` names;
    `tree.nwk`, `clade.json` (the recipe) and a README stand beside. Everything is a function of the arguments.
    `on_image(done, total)` hears of every image. The folder appears whole or not at all.
    Raises `SettingsError` for a folder in use or numbers that cannot be met.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingsError(f"{out} is not an empty folder; name a new one")
    if size_px < 16:
        raise SettingsError(f"pictures need at least 16 pixels a side, got size_px = {size_px}")
    clade = Clade.grow(seed, num_species, ranks)
    counts = image_counts(num_species, num_images, seed)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        rows = []
        for species, count in enumerate(counts):
            for index in range(count):
                pose, picture = photograph(clade.traits[species], seed, species, index, size_px)
                rows.append(_Row(_file_name(clade, species, index), species, index, split_of(index, count), pose))
                _save(partial / rows[-1].file_name, picture)
                if on_image:
                    on_image(len(rows), num_images)
        _write_tables(partial, clade, rows)
        _write_notes(partial, clade, len(rows), size_px)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial)
        raise
    return Simulated(out, clade, counts)


def _file_name(clade: Clade, species: int, index: int) -> str:
    folder = clade.species[species].label.replace(" ", "_")
    return f"images/{folder}/{index:04d}.png"


def _save(path: Path, picture: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture.transpose(1, 2, 0)).save(path)


def _write_tables(folder: Path, clade: Clade, rows: Sequence[_Row]) -> None:
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "split", *clade.ranks, "scientific_name", "group"])
        for row in rows:
            lineage = clade.species[row.species]
            names = [lineage.get(rank) or "" for rank in clade.ranks]
            group = f"{lineage.label.replace(' ', '_')}-dive-{dive_of(row.index)}"
            writer.writerow([row.file_name, row.split, *names, lineage.label, group])
    traits = [
        {
            "file_name": row.file_name,
            "species_index": row.species,
            "image_index": row.index,
            "scientific_name": clade.species[row.species].label,
            **clade.traits[row.species].values(),
            **{f"pose_{name}": value for name, value in row.pose.values().items()},
            "caption": caption(clade.traits[row.species], row.pose),
        }
        for row in rows
    ]
    pq.write_table(pa.Table.from_pylist(traits), folder / "traits.parquet")
    ancestors = [
        {
            **{rank: taxon.get(rank) or "" for rank in clade.ranks[:-1]},
            "scientific_name": taxon.label,
            "taxon_rank": taxon.rank,
            "time": float(clade.times[node]),
            "num_species": len(clade.species_below(node)),
            **clade.node_traits[node].values(),
        }
        for taxon, node in clade.ancestors().items()
    ]
    if ancestors:
        pq.write_table(pa.Table.from_pylist(ancestors), folder / "ancestors.parquet")


def _write_notes(folder: Path, clade: Clade, num_images: int, size_px: int) -> None:
    (folder / "tree.nwk").write_text(clade.newick() + "\n", encoding="utf-8")
    recipe = {
        "seed": clade.seed,
        "num_species": len(clade),
        "num_images": num_images,
        "size_px": size_px,
        "ranks": list(clade.ranks),
        "num_taxa": {rank: len(clade.taxa(rank)) for rank in clade.ranks},
    }
    (folder / "clade.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    numbers = ", ".join(f"{len(clade.taxa(rank))} of rank {rank}" for rank in clade.ranks)
    (folder / "README.md").write_text(
        f"# A simulated clade\n\nNone of these animals exists. {num_images} pictures of {size_px} px show {numbers}, "
        f"drawn by `taxadiffusion simulate --seed {clade.seed}` along a birth-death tree on which "
        "their traits evolved.\n\n"
        "* `metadata.csv`: one row per picture, Hugging Face image folder convention; `group` is a dive, two pictures "
        "that share place and light\n"
        "* `traits.parquet`: the true traits of the species in each picture, its pose and light, and a caption\n"
        "* `ancestors.parquet`: the true traits of the last common ancestor of each taxon with two or more taxa in it, "
        "and when it lived (`time`: 0 the clade's beginning, 1 today)\n"
        "* `tree.nwk`: the tree; `clade.json`: the recipe\n",
        encoding="utf-8",
    )
