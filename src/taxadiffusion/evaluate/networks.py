"""The networks that look at images, and what those beside the features' own say of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.judges import JudgeSettings, Tell
from taxadiffusion.evaluate.pictures import Pictures
from taxadiffusion.evaluate.planted import Planter
from taxadiffusion.evaluate.side import Side
from taxadiffusion.evaluate.traits import TraitJudge
from taxadiffusion.features import Extractor
from taxadiffusion.features.bioclip import BioclipExtractor
from taxadiffusion.features.perceptual import PerceptualDistance
from taxadiffusion.metrics.blocks import row_blocks
from taxadiffusion.metrics.metric import Beside
from taxadiffusion.names import Rank

# N images, D feature width


@dataclass(frozen=True, slots=True)
class Networks:
    """What looks at the images. `perceptual` (LPIPS) and `traits` (simulated clades) may be absent, with their rows."""

    features: Extractor
    """Of distances, and of the first judge."""
    perceptual: PerceptualDistance | None = None
    alignment: BioclipExtractor | None = None
    traits: TraitJudge | None = None
    store: FeatureStore | None = None
    """Where features are kept and shared among processes; none: they are computed here, each time."""
    second: Extractor | None = None
    """Of the second judge, another network."""
    planter: Planter | None = None
    """Plants copies with the base that made the pictures; none: whether pictures are copies is not told."""

    def __post_init__(self) -> None:
        if self.second is not None and self.second.content_hash == self.features.content_hash:
            raise SettingsError(f"--extractor: {self.second.name} is given twice; a second judge is another network")

    @property
    def extractors(self) -> tuple[Extractor, ...]:
        """One for each judge."""
        return (self.features,) if self.second is None else (self.features, self.second)

    def features_of(
        self, pictures: Pictures, extractor: Extractor, size_px: int, progress: Tell
    ) -> NDArray[np.float32]:
        """(N, D) features of the images at `size_px` by one of `extractors`."""
        if self.store is None:
            return pictures.features(extractor, size_px)

        def told(done: int, total: int) -> None:
            progress(f"features of {pictures.name} by {extractor.name}: {done} of {total} images")

        return self.store.features(pictures, extractor, size_px, told)


class FurtherNetworks:
    """What LPIPS, a network of images and text, and the instrument of a simulated clade say, where they are given."""

    def __init__(self, networks: Networks, settings: JudgeSettings, train: Side, ranks: tuple[Rank, ...]) -> None:
        """train: the training photographs; ranks: of the data set."""
        self._networks = networks
        self._settings = settings
        self._train = train
        self._ranks = ranks

    def __call__(self, side: Side) -> Beside:
        """Of the N images of one rank."""
        rank = side.lineages[0].rank
        assert rank is not None, "images of a rank name it"
        train, rows = self._train.at(rank), range(len(side.files))
        to_real = among = cosines = best = read = of_species = None
        if self._networks.perceptual is not None:
            rng = np.random.default_rng(self._settings.seed)
            photographs_of = train.groups()
            real = [int(rng.choice(photographs_of[taxon])) for taxon in side.lineages]
            to_real = self._lpips(side, rows, train, real)
            among = self._lpips(side, rows, side, _next_of_taxon(side))
        if self._networks.alignment is not None:
            taxa = list(train.groups())
            names = self._networks.alignment.texts(taxa)  # (taxa, D)
            seen = self._seen_by(self._networks.alignment, side)
            position = {taxon: i for i, taxon in enumerate(taxa)}
            own = np.array([position[lineage] for lineage in side.lineages])
            cosines = np.einsum("nd,nd->n", seen, names[own])
            best = _best_named(seen, names) == own
        if self._networks.traits is not None:
            read, of_species = self._networks.traits(side, rank, self._ranks)
        return Beside(to_real, among, cosines, best, read, of_species)

    def _seen_by(self, images: BioclipExtractor, side: Side) -> NDArray[np.float32]:
        """(N, D) features; those of the same network are there already."""
        if images.content_hash == self._networks.features.content_hash:
            return side.features
        batches = _batches(side, range(len(side.files)), self._settings.size_px)
        return np.concatenate([images(batch) for batch in batches])

    def _lpips(self, side: Side, rows: Sequence[int], other: Side, others: Sequence[int]) -> NDArray[np.floating]:
        distance, size_px = self._networks.perceptual, self._settings.size_px
        assert distance is not None, "asked for by `__call__` alone"
        pairs = zip(_batches(side, rows, size_px), _batches(other, others, size_px), strict=True)
        return np.concatenate([distance(images, photographs) for images, photographs in pairs])


def _batches(side: Side, rows: Sequence[int], size_px: int, batch_size: int = 64) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(rows), batch_size):
        yield np.stack([side.load(i, size_px) for i in rows[start : start + batch_size]])


def _best_named(seen: NDArray[np.float32], names: NDArray[np.float32]) -> NDArray[np.intp]:
    """(N,) position of the nearest of the names (taxa, D) to each of the images (N, D)."""
    blocks = [(seen[block] @ names.T).argmax(1) for block in row_blocks(len(seen), len(names), 4)]
    return np.concatenate(blocks)


def _next_of_taxon(side: Side) -> list[int]:
    """For each image the next one of its taxon and run, in a ring; a single image's next is itself."""
    following = list(range(len(side.files)))
    for runs in side.cells().values():
        for rows in runs:
            ring = rows.tolist()
            for i, after in zip(ring, ring[1:] + ring[:1], strict=True):
                following[i] = after
    return following
