"""What the search for copies can see: copies planted among real photographs, by kind, with its false alarms and time.

`python -m benchmarks.copies --data PREPARED --onnx FILE --base base-128 [--adapter MODEL] [--generated DIR …]`.
Copies are training photographs that went through the base's autoencoder, plain, mirrored, cropped, recoloured, or
noised and denoised by the adapter, told the species, or by the base, told nothing. Beside the search stands what it
replaced: the distance to the nearest training photograph in features. The unseen photographs that stand out most are
listed, for they may have been in training too. With --generated the pictures of folders are looked at as well.
"""

# Letters: N images, C latent channels, H W latent size, T tokens, D width.
from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate import copies
from taxadiffusion.evaluate.copies import CopyJudge, CopySettings
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.memorisation import CopyFound
from taxadiffusion.evaluate.pictures import Pictures, generated_folder, photographs
from taxadiffusion.evaluate.planted import Denoise, Images, Planter, image_to_image
from taxadiffusion.evaluate.side import Side
from taxadiffusion.features import CachedExtractor, Extractor
from taxadiffusion.features.onnx import OnnxExtractor
from taxadiffusion.metrics.neighbours import NearestSearch
from taxadiffusion.names import Lineage
from taxadiffusion.report.copies import eyesight_table
from taxadiffusion.report.tables import markdown_table

EXPECTED = 0.01


class Remembered:
    """A planter whose copies can be looked at again."""

    def __init__(self, planter: Planter) -> None:
        self._planter = planter
        self.copies: dict[str, Images] = {}
        self.passed: list[Images] = []

    def through_autoencoder(self, images: Images) -> Images:
        self.passed.append(self._planter.through_autoencoder(images))
        return self.passed[-1]

    def __call__(self, photographs: Images, seed: int) -> Mapping[str, Images]:
        self.copies |= self._planter(photographs, seed)
        return self.copies

    def partial(self, *given: np.ndarray) -> Mapping[str, Images]:
        partial = self._planter.partial(*given)
        self.copies |= partial
        return partial


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    dataset, extractor, store, train, unseen = opened(options)
    backbone = Backbone.load(options.base)
    adapter = open_model(options.adapter) if options.adapter else None
    originals = [train.lineages[i] for i in copies.drawn(train, copies.MAX_PLANTED, options.seed)]
    planter = Remembered(Planter(backbone, denoising(adapter, originals) if adapter else None))
    before = time.process_time()
    settings = CopySettings(options.size_px, EXPECTED, options.seed)
    judge = CopyJudge(train, unseen, extractor, planter, settings)
    planted_s = time.process_time() - before
    _print_eyesight(judge, planter, extractor, train)
    sight = judge.eyesight["picture"]
    print(
        f"\n{len(train.files)} training photographs, {sight.num_unseen} unseen; features {extractor.name}; denoised by "
    )
    print(f"{options.adapter or options.base}; seed {options.seed}; set up in {planted_s:.0f} s of one core.")
    rank = dataset.ranks[-1]
    print("unseen photographs that stand out most, and the training photographs that they are most like:")
    for pair in judge(unseen.at(rank), rank).pairs:
        print(f"  {pair.standing:.2f}  {pair.generated}  {pair.photograph}")
    for folder in options.generated:
        side = side_of(generated_folder(folder, dataset.ranks), store, extractor, options.size_px)
        before = time.process_time()
        found = judge(side, rank)
        each_ms = (time.process_time() - before) / found.num_looked_at * 1e3
        for part in found.eyesight:
            print(f"{folder.name}, {part}: {found.verdict(part)}")
        print("found, by training photographs of the copied species:", *_words(found.eyesight["picture"].buckets))
        print("flagged, by training photographs of the species:", *_words(found.buckets))
        print(f"{each_ms:.1f} ms a picture; nearest:", *found.pairs[:5], sep="\n  ")


def _words(found: Mapping[str, CopyFound]) -> list[str]:
    return [f"{bucket}: {share}" for bucket, share in found.items()]


def _print_eyesight(judge: CopyJudge, planter: Remembered, extractor: Extractor, train: Side) -> None:
    passed = planter.passed[0]  # the unseen photographs
    search = NearestSearch(train.features, features_of(extractor, passed))
    threshold = float(np.quantile(search(features_of(extractor, passed)).distances, EXPECTED))
    before = {
        kind: float((search(features_of(extractor, images)).distances < threshold).mean())
        for kind, images in planter.copies.items()
    }
    header, rows = eyesight_table(judge.eyesight)
    body = [[cell.value for cell in row] for row in rows]
    for row in body:
        row.append(f"{before[row[0]]:.2f}" if row[0] in before else f"at most {EXPECTED:.0%}")
    print(markdown_table([*header, "nearest by features"], body))
    for part, sight in judge.eyesight.items():
        print(f"{part}: threshold {sight.threshold}, finds {sight.judged} that it must find")


def denoising(adapter: Adapter, lineages: Sequence[Lineage]) -> Denoise:
    """Image-to-image by the adapter, each picture told what it shows."""
    denoiser = adapter.denoiser.eval()
    asked = [lineage.only(adapter.card.ranks) for lineage in lineages]

    @torch.no_grad()
    def denoise(latents: Tensor, strength: float, seed: int) -> Tensor:
        conditions = denoiser.conditioner(asked)  # (N, T, D)

        def predict(noisy: Tensor, timesteps: Tensor, rows: slice) -> Tensor:
            return denoiser.backbone(noisy, timesteps, conditions[rows])

        return image_to_image(latents, strength, seed, denoiser.backbone, predict)

    return denoise


def side_of(pictures: Pictures, store: FeatureStore, extractor: Extractor, size_px: int) -> Side:
    features = store.features(pictures, extractor, size_px)
    return Side(features, pictures.lineages, pictures.files, (0,) * len(pictures), pictures.load)


def features_of(extractor: Extractor, images: Images) -> np.ndarray:
    return np.concatenate([extractor(np.ascontiguousarray(images[i : i + 64])) for i in range(0, len(images), 64)])


def opened(options: argparse.Namespace) -> tuple[PreparedDataset, Extractor, FeatureStore, Side, Side]:
    """The data set, its network and store of features, and the training and the unseen photographs."""
    dataset = PreparedDataset.open(options.data)
    extractor = CachedExtractor(OnnxExtractor(options.onnx), options.cache)
    store = FeatureStore(options.cache / "blocks")
    train, unseen = (
        side_of(photographs(dataset, split, dataset.ranks), store, extractor, options.size_px)
        for split in ("train", "test")
    )
    return dataset, extractor, store, train, unseen


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.copies", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="prepared data set")
    parser.add_argument("--onnx", type=Path, required=True, help="feature network")
    parser.add_argument("--base", default=SHIPPED_BASE, help="whose autoencoder the copies pass through")
    parser.add_argument("--adapter", help="what denoises in image-to-image; none: the base, told no name")
    parser.add_argument("--generated", type=Path, nargs="*", default=[], help="folders with images and metadata.csv")
    parser.add_argument("--size-px", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="where features are kept")
    return parser.parse_args()


if __name__ == "__main__":
    main()
