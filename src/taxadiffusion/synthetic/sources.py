"""The pictures of a comparison, read once: photographs to learn from, photographs to judge by, synthetic sets."""

# N photographs, S species
from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.judges import Tell
from taxadiffusion.evaluate.pictures import Pictures, Places, generated_folder, photographs
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.synthetic.checks import Sight
from taxadiffusion.synthetic.classifiers import Pack
from taxadiffusion.synthetic.folds import Ints, Pool
from taxadiffusion.synthetic.making import CANDIDATES, IDENTITY
from taxadiffusion.synthetic.plan import counted_species, read_plan

PLAN = "plan.csv"

_JUDGED = ("test", "judge")


@dataclass(frozen=True, slots=True)
class Sources:
    """What is compared. judged None: no published split judges, so each fold's left-out photographs do."""

    taxa: tuple[Lineage, ...]
    """The species, S of them, in the order of their labels."""
    counts: Ints
    """(S,) training photographs."""
    learnt: Pack
    groups: tuple[str, ...]
    judged: Pack | None
    judged_splits: tuple[str, ...]
    left_out: int
    """Photographs of the judging splits that show no species of training."""
    pools: tuple[Pool, ...]
    content_hash: str


def read_sources(
    dataset: PreparedDataset, synthetic: Sequence[tuple[str, Path]], by: Sight, tell: Tell = lambda _: None
) -> Sources:
    """Photographs of `train`, of `test` and `judge` (where there is neither: of `val`), and the folders' pictures.

    synthetic: name and folder, as `augment` or `generate` wrote it. Of a set of `augment` every picture that it drew is
    read: which are used is decided within each fold. Raises `DataError` for a folder that is no such set, shows nothing
    of the data, or holds the accepted pictures alone.
    """
    ranks = dataset.ranks
    counted = counted_species(dataset, ranks)
    taxa = tuple(sorted(counted, key=str))
    if len(taxa) < 2:
        raise DataError(
            f"{dataset.path}: its training photographs show {len(taxa)} {ranks[-1]}; two or more are told apart"
        )
    label_of = {taxon: i for i, taxon in enumerate(taxa)}
    tell("looking at the photographs")
    train = _of_rank(photographs(dataset, "train", ranks), ranks)
    splits = tuple(split for split in _JUDGED if len(dataset.rows(split)))
    splits = splits or tuple(split for split in ("val",) if len(dataset.rows(split)))
    judged = [_of_rank(photographs(dataset, split, ranks), ranks) for split in splits]
    known = [one.select([i for i, lineage in enumerate(one.lineages) if lineage in label_of]) for one in judged]
    packs = [_pack(one, label_of, by) for one in known if len(one)]
    pools = []
    for name, folder in synthetic:
        tell(f"looking at {name}")
        pools.append(_pool(name, folder, counted, label_of, ranks, by))
    learnt = _pack(train, label_of, by)
    judging = None
    for pack in packs:
        judging = pack if judging is None else judging.with_(pack)
    return Sources(
        taxa,
        np.array([counted[taxon] for taxon in taxa]),
        learnt,
        train.groups or train.files,
        judging,
        splits if judging is not None else (),
        sum(len(one) for one in judged) - sum(len(one) for one in known),
        tuple(pools),
        _hash(learnt, judging, pools, [by.extractor.content_hash, by.size_px, *(train.groups or train.files)]),
    )


def _of_rank(pictures: Pictures, ranks: Sequence[Rank]) -> Pictures:
    """Those of the finest rank, their lineages over `ranks`."""
    kept = pictures.select([i for i, lineage in enumerate(pictures.lineages) if lineage.get(ranks[-1])])
    return replace(kept, lineages=tuple(lineage.only(ranks) for lineage in kept.lineages))


def _pack(pictures: Pictures, label_of: dict[Lineage, int], by: Sight) -> Pack:
    images = np.concatenate(list(pictures.images(by.size_px)))
    features = by.store.features(pictures, by.extractor, by.size_px)
    return Pack(images, features, np.array([label_of[lineage] for lineage in pictures.lineages]))


def _pool(
    name: str, folder: Path, counted: Counter[Lineage], label_of: dict[Lineage, int], ranks: Sequence[Rank], by: Sight
) -> Pool:
    if not (folder / CANDIDATES).is_dir() and (folder.parent / IDENTITY).is_file():
        raise DataError(
            f"{folder}: holds what a set accepted, chosen by photographs that judge here too; give the set itself, "
            f"{folder.parent}"
        )
    drawn = _of_rank(generated_folder(folder / CANDIDATES if (folder / CANDIDATES).is_dir() else folder, ranks), ranks)
    places = Places(label_of, ranks)  # the model may know fewer ranks than the data has
    drawn = replace(drawn, lineages=tuple(places(lineage, name) for lineage in drawn.lineages))
    pictures = drawn.select([i for i, lineage in enumerate(drawn.lineages) if lineage in label_of])
    if not len(pictures):
        raise DataError(f"{folder}: none of its {len(drawn)} pictures shows a {ranks[-1]} of the data set")
    pack = _pack(pictures, label_of, by)
    limits = np.bincount(pack.labels, minlength=len(label_of))
    if (folder / PLAN).is_file():
        plan = read_plan(folder / PLAN, counted, ranks)
        asked = {one.taxon: one.pictures for one in plan.wanted}
        limits = np.array([asked[taxon] for taxon in label_of])
    return Pool(name, pack, limits)


def _hash(learnt: Pack, judged: Pack | None, pools: Sequence[Pool], more: Sequence[str | int]) -> str:
    digest = hashlib.sha256(json.dumps(more).encode())
    for pack in (learnt, *([judged] if judged else []), *(pool.pack for pool in pools)):
        digest.update(np.ascontiguousarray(pack.images).tobytes())
        digest.update(np.ascontiguousarray(pack.labels).tobytes())
    for pool in pools:
        digest.update(json.dumps([pool.name, pool.limits.tolist()]).encode())
    return digest.hexdigest()
