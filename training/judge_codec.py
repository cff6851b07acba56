"""How often photographs are still named right after a pass through the codec: the most that drawn pictures can reach.

    python -m training.judge_codec --real prepared/butterflies prepared/reef-fish \
        --onnx efficientnet_lite2.onnx mobilenet_v1_075.onnx --decoder work/decoder/decoder.safetensors

`--decoder src/taxadiffusion/weights/base-128` judges an exported base's own autoencoder.

Unseen photographs at 128 px are encoded and decoded, by least squares and by the learnt decoder, and named by a linear
probe that was fitted on untouched training photographs. Prints balanced accuracy of the deepest taxa with intervals,
and each decoder's share of the accuracy of untouched photographs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from numpy.typing import NDArray

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.naming import Namer
from taxadiffusion.evaluate.pictures import Pictures, photographs, unseen_split
from taxadiffusion.features import CachedExtractor, Extractor, open_extractor
from taxadiffusion.metrics.intervals import Interval, difference_over_taxa, mean_over_taxa
from taxadiffusion.names import Lineage
from training.codec import Codec
from training.command import run
from training.decoder import read_codec, read_decoder
from training.packs import as_pixels

# N images, D feature width

UNTOUCHED, LINEAR, LEARNT = "untouched", "least squares", "learnt decoder"
BATCH = 32


class Passes:
    """uint8 pictures (B, 3, H, W) as each decoder gives them back."""

    def __init__(self, decoder: Path) -> None:
        self.vae, self.codec = opened(decoder)

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
        latents = self.vae.encode(as_pixels(torch.from_numpy(images))).latent_dist.mean
        found = {LINEAR: self.codec.decode(latents), LEARNT: self.vae.decode(latents).sample}
        return {name: _as_bytes(pixels) for name, pixels in found.items()}


def opened(decoder: Path) -> tuple[AutoencoderKL, Codec]:
    """The autoencoder and its components: of an exported base's folder, or of a state of `training.decoder`."""
    if decoder.is_dir():
        vae = AutoencoderKL.from_pretrained(decoder / "vae", torch_dtype=torch.float32)
        return vae.eval(), read_codec(decoder / "codec.safetensors")
    return read_decoder(decoder), read_codec(decoder)


def _as_bytes(pixels: torch.Tensor) -> NDArray[np.uint8]:
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


@dataclass(frozen=True)
class Row:
    """One way to decode: its accuracy, and its share of that of untouched photographs.

    share: None for untouched ones. Its interval is that of the difference, taxa paired, over the mean of untouched
    photographs.
    """

    way: str
    accuracy: Interval
    share: Interval | None


def by_taxon(right: NDArray[np.bool_], taxa: Sequence[Lineage]) -> list[list[NDArray[np.bool_]]]:
    """Values as `mean_over_taxa` takes them, of one run."""
    names = list(dict.fromkeys(taxa))
    return [[right[[i for i, taxon in enumerate(taxa) if taxon == name]]] for name in names]


def rows_of(right: dict[str, NDArray[np.bool_]], taxa: Sequence[Lineage]) -> list[Row]:
    """right: by way (N,), whether each photograph is named right; `UNTOUCHED` is among them."""
    whole = by_taxon(right[UNTOUCHED], taxa)
    mean, found = mean_over_taxa(whole, share=True).mean, []
    for way, values in right.items():
        own = by_taxon(values, taxa)
        change = difference_over_taxa(own, whole, share=True)
        share = Interval(1 + change.mean / mean, 1 + change.low / mean, 1 + change.high / mean) if mean else None
        found.append(Row(way, mean_over_taxa(own, share=True), None if way == UNTOUCHED else share))
    return found


def judged(
    dataset: PreparedDataset, extractor: Extractor, passes: Passes, size_px: int, cache: Path
) -> tuple[list[Row], int, int]:
    """→ rows, photographs, taxa. Raises `DataError` as `Namer.fit` and `unseen_split` do."""
    store, kept = FeatureStore(cache / "photographs"), CachedExtractor(extractor, cache / "passed")
    train = photographs(dataset, "train", dataset.ranks)
    namer = Namer.fit(store.features(train, extractor, size_px), train.lineages, train.groups)
    unseen = photographs(dataset, unseen_split(dataset), dataset.ranks)
    unseen = unseen.select([i for i, taxon in enumerate(unseen.lineages) if taxon in set(namer.taxa)])
    features = {UNTOUCHED: store.features(unseen, extractor, size_px)} | passed(unseen, kept, passes, size_px)
    right = {
        way: np.array([p == t for p, t in zip(namer(x), unseen.lineages, strict=True)]) for way, x in features.items()
    }
    return rows_of(right, unseen.lineages), len(unseen), len(set(unseen.lineages))


def passed(pictures: Pictures, extractor: Extractor, passes: Passes, size_px: int) -> dict[str, NDArray[np.float32]]:
    """(N, D) features of the pictures as each way gives them back."""
    found: dict[str, list[NDArray[np.float32]]] = {}
    for batch in pictures.images(size_px, BATCH):
        for way, images in passes(batch).items():
            found.setdefault(way, []).append(extractor(images))
    return {way: np.concatenate(parts) for way, parts in found.items()}


def line(row: Row) -> str:
    """A line of a Markdown table, without its first two columns."""

    def words(interval: Interval | None) -> str:
        return f"{interval.mean:.3f} ({interval.low:.3f}–{interval.high:.3f})" if interval else ""

    return f"{row.way} | {words(row.accuracy)} | {words(row.share)} |"


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--real", type=Path, nargs="+", required=True, help="prepared data sets")
    parser.add_argument("--onnx", type=Path, nargs="+", required=True, help="feature networks that judge")
    parser.add_argument("--decoder", type=Path, required=True, help="decoder.safetensors, or a base's folder")
    parser.add_argument("--size-px", type=int, default=128)
    parser.add_argument("--cache", type=Path, default=Path("runs/features"), help="where features are kept")
    args = parser.parse_args()
    passes = Passes(args.decoder)
    print("| data set, judge | decoded by | named right | of untouched |\n|---|---|---|---|", flush=True)
    for folder in args.real:
        dataset = PreparedDataset.open(folder)
        for network in args.onnx:
            rows, images, taxa = judged(dataset, open_extractor(f"onnx:{network}"), passes, args.size_px, args.cache)
            for row in rows:
                where = f"{folder.name}, {network.stem} ({images} photographs, {taxa} taxa)"
                print(f"| {where} | {line(row)}", flush=True)


if __name__ == "__main__":
    run(command)
