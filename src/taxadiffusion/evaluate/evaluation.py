"""Evaluate methods against a prepared data set: features once, then every rank of every method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.copies import NO_BASE, CopySearch, CopySettings, not_looked
from taxadiffusion.evaluate.judges import Finish, Judges, JudgeSettings, Tell, fit_namers
from taxadiffusion.evaluate.naming import FEWEST_PHOTOGRAPHS, Namer
from taxadiffusion.evaluate.networks import FurtherNetworks, Networks
from taxadiffusion.evaluate.pick import BEST, Comparison, differences, distance_differences, pick
from taxadiffusion.evaluate.pictures import Pictures, Places, photographs, unseen_split
from taxadiffusion.evaluate.results import JudgeProtocol, Protocol, Results
from taxadiffusion.evaluate.scores import RankScores
from taxadiffusion.evaluate.side import Side
from taxadiffusion.features import Extractor
from taxadiffusion.metrics.naming import FIRST_JUDGE
from taxadiffusion.metrics.probe import INVERSE_PENALTIES
from taxadiffusion.names import Rank
from taxadiffusion.versions import versions

# N images, D feature width

_LIBRARIES = ("taxadiffusion", "numpy", "torch", "diffusers", "scikit-learn")

JUDGE_SPLITS = ("train", "judge")
"""Of the photographs that judges are fitted on, where a data set has them."""


def evaluate(
    dataset: PreparedDataset,
    methods: Mapping[str, Sequence[Pictures]],
    networks: Networks,
    settings: JudgeSettings,
    progress: Tell = lambda _: None,
    trained_on: Mapping[str, Collection[str]] | None = None,
    comparison: Comparison = BEST,
) -> Results:
    """Score each method's images, one `Pictures` for each model trained with its own seed, at each of the ranks.

    An image belongs to the rank of its finest name. The photographs of the test split (where there is none, of
    validation) are scored in the same way, as `real`. trained_on: method → the files of the training photographs that
    it learnt from, where those are not all; what it never saw it cannot have copied. comparison: the method that the
    others are compared with; without, the best, picked on half of the pictures and compared on the others. Raises
    `SettingsError` for ranks the data lacks, `DataError` where images are too few or show a taxon that training lacks.
    """
    check_ranks(dataset, settings.ranks)
    progress("reading photographs")
    held_back = unseen_split(dataset)
    real_pictures = {split: photographs(dataset, split, settings.ranks) for split in _splits(dataset)}
    sides = {split: _side([pictures], networks, settings, progress) for split, pictures in real_pictures.items()}
    train = sides["train"]
    groups = [group for split in JUDGE_SPLITS if split in sides for group in real_pictures[split].groups or ()]
    namers = fit_namers(train, sides.get("judge"), groups, settings.seed, progress)
    judges = Judges(train, sides[held_back], namers, settings, progress)
    places = Places(train.lineages, dataset.ranks)
    pairs = FurtherNetworks(networks, settings, train, dataset.ranks)
    looked_at = _copies_among(train, sides[held_back], networks, settings, progress)
    scored = {}
    for name, runs in methods.items():
        progress(f"looking at {name}")
        side = _side(runs, networks, settings, progress)
        side = replace(side, lineages=tuple(places(lineage, name) for lineage in side.lineages))
        seen = trained_on[name] if trained_on and name in trained_on else None
        scored[name] = judges.of_method(name, side, pairs, seen, looked_at(seen))
    real = judges.of_unseen(f"photographs of the {held_back} split", pairs, looked_at(None))
    picked = pick(scored, comparison.named)
    return Results(
        _protocol(dataset, networks, settings, namers, tuple(split for split in JUDGE_SPLITS if split in sides)),
        scored,
        real,
        differences(scored, picked, comparison.against),
        distance_differences(scored, picked, comparison.against),
        picked,
        _left_out(real_pictures, methods),
        differences(scored, picked, comparison.against, second=True),
        _not_judged(train, namers[FIRST_JUDGE], settings.ranks),
        {name: len(runs) for name, runs in methods.items()},
        _models(methods),
        comparison.against,
    )


def _models(methods: Mapping[str, Sequence[Pictures]]) -> dict[str, tuple[str, ...]]:
    """Of each method whose pictures all say which model made them."""
    found = {name: tuple(dict.fromkeys(run.model_sha256 for run in runs)) for name, runs in methods.items()}
    return {name: hashes for name, hashes in found.items() if hashes and all(hashes)}


def _copies_among(
    train: Side, unseen: Side, networks: Networks, settings: JudgeSettings, progress: Tell
) -> Callable[[Collection[str] | None], Finish]:
    """From the files that a method learnt from (None: all) to what looks for copies of these among its images."""
    copies = None
    if networks.planter:
        how = CopySettings(settings.size_px, expected=settings.copy_quantile, seed=settings.seed)
        copies = CopySearch(train, unseen, networks.features, networks.planter, how, progress)

    def looked_at(seen: Collection[str] | None) -> Finish:
        def finish(scores: RankScores, part: Side) -> RankScores:
            progress(f"looking for copies at rank {scores.rank}")
            if copies is None:
                return replace(scores, copies=not_looked(len(part.files), NO_BASE))
            return copies(scores, part, seen)

        return finish

    return looked_at


def _left_out(real: Mapping[str, Pictures], methods: Mapping[str, Sequence[Pictures]]) -> dict[str, int]:
    """How many photographs of each split, and images of each method, are not measured, where there are any."""
    found = {f"photographs, {split}": pictures.left_out for split, pictures in real.items()}
    found |= {name: sum(pictures.left_out for pictures in runs) for name, runs in methods.items()}
    return {name: number for name, number in found.items() if number}


def _splits(dataset: PreparedDataset) -> tuple[str, ...]:
    """Of the photographs that an evaluation looks at."""
    extra = ("judge",) if len(dataset.rows("judge")) else ()
    return ("train", unseen_split(dataset), *extra)


def _not_judged(train: Side, namer: Namer, ranks: Sequence[Rank]) -> dict[Rank, tuple[int, int]]:
    """By rank, how many of how many taxa that training shows no judge knows, where there are any."""
    found = {}
    for rank in ranks:
        taxa = {lineage.truncated(rank) for lineage in train.lineages if lineage.get(rank)}
        if strange := taxa - namer.known:
            found[rank] = len(strange), len(taxa)
    return found


def check_ranks(dataset: PreparedDataset, ranks: Sequence[Rank]) -> None:
    """Raises `SettingsError` for a rank that the data set does not have."""
    unknown = [rank for rank in ranks if rank not in dataset.ranks]
    if unknown:
        raise SettingsError(
            f"--ranks: {unknown[0]!r} is not in {dataset.path}, whose ranks are {', '.join(dataset.ranks)}"
        )


def extract(
    dataset: PreparedDataset,
    methods: Mapping[str, Sequence[Pictures]],
    networks: Networks,
    settings: JudgeSettings,
    progress: Tell = lambda _: None,
) -> None:
    """Compute this process's share of all features that `evaluate` asks for; return when all are in the store."""
    check_ranks(dataset, settings.ranks)
    real = [photographs(dataset, split, settings.ranks) for split in _splits(dataset)]
    for extractor in networks.extractors:
        for pictures in (*real, *(run for runs in methods.values() for run in runs)):
            networks.features_of(pictures, extractor, settings.size_px, progress)


def _side(runs: Sequence[Pictures], networks: Networks, settings: JudgeSettings, progress: Tell) -> Side:
    """The images of all runs together."""
    whole = [(run, i) for run, pictures in enumerate(runs) for i in range(len(pictures))]
    features, *second = (
        _joined([networks.features_of(pictures, extractor, settings.size_px, progress) for pictures in runs])
        for extractor in networks.extractors
    )
    return Side(
        features=features,
        second=second[0] if second else None,
        lineages=tuple(lineage for pictures in runs for lineage in pictures.lineages),
        files=tuple(file for pictures in runs for file in pictures.files),
        runs=tuple(run for run, _ in whole),
        load=lambda i, size_px: runs[whole[i][0]].load(whole[i][1], size_px),
    )


def _joined(parts: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """A single part is not copied."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _protocol(
    dataset: PreparedDataset,
    networks: Networks,
    settings: JudgeSettings,
    namers: Mapping[str, Namer],
    judge_splits: tuple[str, ...],
) -> Protocol:
    return Protocol(
        dataset=dataset.path.name,
        dataset_hash=dataset.content_hash,
        ranks=settings.ranks,
        extractor=networks.features.name,
        extractor_sha256=networks.features.content_hash,
        size_px=settings.size_px,
        reference_split="train",
        unseen_split=unseen_split(dataset),
        max_reference_per_taxon=settings.max_reference_per_taxon,
        copy_quantile=settings.copy_quantile,
        seed=settings.seed,
        software=versions(*_LIBRARIES),
        perceptual=networks.perceptual.name if networks.perceptual else None,
        perceptual_sha256=networks.perceptual.content_hash if networks.perceptual else None,
        judges=tuple(
            _judge_protocol(extractor, namer, judge_splits)
            for extractor, namer in zip(networks.extractors, namers.values(), strict=True)
        ),
    )


def _judge_protocol(extractor: Extractor, namer: Namer, splits: tuple[str, ...]) -> JudgeProtocol:
    choice = namer.choice
    return JudgeProtocol(
        extractor=extractor.name,
        extractor_sha256=extractor.content_hash,
        namer=namer.kind,
        splits=splits,
        num_photographs=sum(namer.counts),
        num_taxa=len(namer.taxa),
        fewest_photographs=FEWEST_PHOTOGRAPHS,
        inverse_penalty=choice.inverse_penalty if choice else None,
        candidates=INVERSE_PENALTIES if choice else None,
        losses=choice.losses if choice else None,
        num_searched=choice.num_images if choice else None,
    )
