"""Describe the pictures of all packs in a folder: phrases, visual words, tokenizer → caption slots.

    python -m training.describe work/packs --onnx mobilenet_v1_075.onnx [--like src/taxadiffusion/weights/base-128]

With --like the vocabulary and the clusters of the visual words are those of an existing base, which its weights need;
without, they are made anew from the packs' training pictures. Features are kept beside the packs, so it resumes.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.progress import track
from transformers import CLIPTokenizer

from taxadiffusion.features import CachedExtractor, Extractor, open_extractor
from training.caption_tokens import ALONE, EMPTY, LAYOUT, LOOK, NUM_SLOTS, PHRASES
from training.captions import Measured, phrases, thresholds
from training.command import run
from training.networks import Tokens
from training.packs import Pack, packs
from training.tokenizer import tokenizer
from training.visual_words import VisualWords, all_words, word

# N pictures, D feature width, S slots

SIZE_PX = 128
BATCH = 32
VOCABULARY_SIZE = 2048


def features(pack: Pack, extractor: Extractor) -> NDArray[np.float32]:
    """(N, D) of all pictures, at 128 px."""
    found = []
    for start in track(range(0, len(pack), BATCH), pack.name):
        pictures = [pack.picture(row) for row in range(start, min(start + BATCH, len(pack)))]
        found.append(extractor(np.stack([_at_128(picture) for picture in pictures])))
    return np.concatenate(found)


def _at_128(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if picture.shape[-1] == SIZE_PX:
        return picture
    image = Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))
    return np.asarray(image.resize((SIZE_PX, SIZE_PX), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


def measured(row: dict[str, object]) -> list[Measured]:
    """Of a picture and of its mirror image."""
    return [Measured(**view) for view in row["measured"]]  # type: ignore[attr-defined]


def line(
    row: dict[str, object], parts: dict[str, str], flip: int, codes: NDArray[np.intp], ids: Callable[[str], list[int]]
) -> list[tuple[int, int]]:
    """Tokens of one picture's caption with their kinds, in the order in which they are said."""
    parts = {**parts, "subject": parts["subject"].replace(" fish", f" {row['noun']}")}
    own = row.get("captions")
    found = [(t, ALONE) for t in ids(own[flip])] if own else []  # type: ignore[index]
    found += [(t, k) for k, kind in enumerate(PHRASES) if parts[kind] for t in ids(parts[kind])]
    found += [(t, LOOK + level) for level, code in enumerate(codes) for t in ids(word(level, int(code)))]
    found += [(t, LAYOUT) for t in ids("layout " + parts["layout"])]
    return found[:NUM_SLOTS]


def write_slots(pack: Pack, codes: NDArray[np.intp], ids: Callable[[str], list[int]]) -> None:
    """`NAME.slots.npz`: slots and kinds (N, 2, S) of all pictures and of their mirror images."""
    views = [measured(row) for row in pack.rows]
    cuts = thresholds([m for pair in views for m in pair])
    slots = np.zeros((len(pack), 2, NUM_SLOTS), np.uint16)
    kinds = np.full((len(pack), 2, NUM_SLOTS), EMPTY, np.uint8)
    for i, (row, pair) in enumerate(zip(pack.rows, views, strict=True)):
        for flip in (0, 1):
            said = line(row, phrases(pair[flip], cuts), flip, codes[i], ids)
            slots[i, flip, : len(said)], kinds[i, flip, : len(said)] = zip(*said, strict=True)
    np.savez_compressed(pack.folder / f"{pack.name}.slots.npz", slots=slots, kinds=kinds)


def describe(folder: Path, extractor: Extractor, like: Path | None = None) -> CLIPTokenizer:
    sets = packs(folder)
    found = {pack.name: features(pack, extractor) for pack in sets}
    if like:
        words = VisualWords.read(like)
        shutil.copytree(like / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
        vocabulary = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    else:
        words = VisualWords.fit(np.concatenate([found[pack.name][pack.train] for pack in sets]))
        vocabulary = tokenizer(VOCABULARY_SIZE, ("butterfly", "moth", "animal", *all_words()))
        vocabulary.save_pretrained(folder / "tokenizer")
    words.write(folder)
    known: dict[str, list[int]] = {}

    def ids(text: str) -> list[int]:
        if text not in known:
            known[text] = vocabulary(text, add_special_tokens=False)["input_ids"]
        return known[text]

    for pack in sets:
        write_slots(pack, words(found[pack.name]), ids)
    Tokens(
        bos=vocabulary.bos_token_id,
        eos=vocabulary.eos_token_id,
        pad=vocabulary.pad_token_id,
        any=ids("any")[0],
        layout=ids("layout")[0],
        vocab=len(vocabulary),
    ).write(folder)
    return vocabulary


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packs", type=Path)
    parser.add_argument("--onnx", type=Path, required=True, help="the feature network; not the one that judges")
    parser.add_argument("--like", type=Path, help="a base whose tokenizer and visual words are taken")
    args = parser.parse_args()
    extractor = CachedExtractor(open_extractor(f"onnx:{args.onnx}"), args.packs / "features")
    print(f"{len(describe(args.packs, extractor, args.like))} tokens; captions in {args.packs}")


if __name__ == "__main__":
    run(command)
