"""Write a base in diffusers' layout (float16 safetensors) from a state, at any time of a pretraining.

    python -m training.export --state work/base/state.safetensors --packs work/packs --out work/base-128 \
        --start BASE [--decoder work/decoder/decoder.safetensors]

Without --decoder the autoencoder is the start's, weight for weight, so that latents which were encoded stay.

Stock diffusers loads the folder as a `StableDiffusionPipeline`. `training.json` in it says what the base has seen: what
the packs show, and what the start had seen before.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTokenizer

from taxadiffusion.base.training_record import Source, TrainingRecord, read_record, write_record
from taxadiffusion.base.weights import RECORD_FILE
from taxadiffusion.errors import DataError
from training.caption_tokens import EMPTY
from training.codec import Codec
from training.command import run
from training.corpus import part, scaling
from training.decoder import read_codec, read_decoder
from training.networks import Tokens, scheduler
from training.packs import Pack, packs
from training.preview import loaded
from training.state import read_average
from training.visual_words import FILE as WORDS_FILE


def joined(sources: Iterable[Source]) -> TrainingRecord:
    """One record; sources of one name are the same photographs, so a taxon's larger number counts, not the sum."""
    found: dict[str, Source] = {}
    for source in sources:
        if source.name not in found:
            found[source.name] = source
            continue
        old = found[source.name]
        taxa = {t: max(old.taxa.get(t, 0), source.taxa.get(t, 0)) for t in sorted({*old.taxa, *source.taxa})}
        new = () if source.learnt in old.learnt else (source.learnt,)
        found[source.name] = Source(
            name=source.name,
            splits=tuple(dict.fromkeys((*old.splits, *source.splits))),
            num_images=max(old.num_images, source.num_images, sum(taxa.values())),
            taxa=taxa,
            learnt="; ".join(filter(None, (old.learnt, *new))),
        )
    return TrainingRecord(sources=tuple(found.values()))


def seen(sets: Sequence[Pack], start: Path | None) -> TrainingRecord:
    """Of the packs, and of the base that pretraining began from. Raises `DataError` where either is not recorded."""
    sources = []
    for pack in sets:
        path = pack.folder / f"{pack.name}.seen.json"
        if not path.is_file():
            raise DataError(f"{path}: missing, so what the base saw is not known; pack again with training.pack")
        try:
            sources.append(Source.model_validate(json.loads(path.read_text(encoding="utf-8"))))
        except (ValueError, ValidationError) as error:
            raise DataError(f"{path}: {error}; pack again with training.pack") from error
    if start:
        before = read_record(start)
        if before is None:
            raise DataError(f"{start}: holds no {RECORD_FILE}, so what the start had seen is not known")
        sources = [*before.sources, *sources]
    return joined(sources)


@torch.no_grad()
def even_tokens(text: nn.Module, used: Tensor) -> None:
    """Tokens that no caption used get the length of those that were, or position alone would tell names apart."""
    table = next(p for name, p in text.named_parameters() if name.endswith("token_embedding.weight"))
    norms = table.norm(dim=1)
    if not used.all():
        table[~used] *= norms[used].mean() / norms[~used].mean()


def used_tokens(sets: Sequence[Pack], tokens: Tokens) -> Tensor:
    used = torch.zeros(tokens.vocab, dtype=torch.bool)
    for pack in sets:
        slots = pack.slots()
        used[slots.tokens[slots.kinds != EMPTY].unique()] = True
    used[[tokens.bos, tokens.eos, tokens.pad, tokens.any]] = True
    return used


def autoencoder_for(codec: Codec, decoder: Path | None, start: Path | None) -> AutoencoderKL:
    """That of `decoder`, else the start's. Raises `DataError` where there is neither, or it is of another codec."""
    source = decoder or (start and start / "codec.safetensors")
    if source is None:
        raise DataError("say which decoder (--decoder), or which base has it (--start)")
    decoded = read_codec(source)
    if decoded.filters.shape != codec.filters.shape or not torch.equal(decoded.filters, codec.filters):
        raise DataError(f"{source}: is of another codec than the state")
    return read_decoder(decoder) if decoder else AutoencoderKL.from_pretrained(start, subfolder="vae")


def without_paths(out: Path) -> None:
    """Diffusers notes in each part's settings where it was read: a path of this machine."""
    for path in out.glob("*/config.json"):
        settings = json.loads(path.read_text(encoding="utf-8"))
        if settings.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def export(state: Path, decoder: Path | None, folder: Path, out: Path, start: Path | None = None) -> int:
    """→ the number of parameters. Raises `DataError` where decoder and state are of different codecs."""
    sets, tokens, average = packs(folder), Tokens.read(folder), read_average(state)
    record, codec, cpu = seen(sets, start), average.codec, torch.device("cpu")
    model, vae = loaded(average, tokens, cpu), autoencoder_for(codec, decoder, start)
    even_tokens(model["text"], used_tokens(sets, tokens))
    if decoder:
        vae.register_to_config(scaling_factor=average.scaling or scaling([part(pack, codec, cpu) for pack in sets]))
    scale = float(vae.config.scaling_factor)
    pipeline = StableDiffusionPipeline(
        vae=vae.half(),
        text_encoder=model["text"].half(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=model["unet"].half(),
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(out, safe_serialization=True)
    without_paths(out)
    if (folder / WORDS_FILE).exists():
        shutil.copy(folder / WORDS_FILE, out)
    save_file({"filters": codec.filters, "bias": codec.bias, "scaling": torch.tensor(scale)}, out / "codec.safetensors")
    write_record(record, out)
    return sum(p.numel() for network in (vae, model) for p in network.parameters())


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("state", "packs", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--decoder", type=Path, help="a newly learnt one; none: the start's")
    parser.add_argument("--start", type=Path, help="the base that pretraining began from: what it saw is recorded too")
    args = parser.parse_args()
    number = export(args.state, args.decoder, args.packs, args.out, args.start)
    print(f"{number / 1e6:.2f} M parameters in {args.out}")


if __name__ == "__main__":
    run(command)
