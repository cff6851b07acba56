"""Where a base's files are, what they contain, and reading them without running anything they hold."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import sha256_of

SHIPPED_BASE = "base-128"
"""The name of the base that ships with the package, and of its folder below `weights/`."""

_SHIPPED_NAME = re.compile(r"[a-z0-9-]+")

_WEIGHTS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
_PICKLED = dict.fromkeys(_WEIGHTS, "diffusion_pytorch_model.bin") | {"text_encoder": "pytorch_model.bin"}
_HALF = "fp16"
"""The one variant of weights that is read, and only where a component has no other."""

RECORD_FILE = "training.json"
"""What the base learnt from (`base.training_record`), where it says so; it travels with the base and is in no hash
of it.
"""

_SETTINGS_FILES: Sequence[str] = (
    "model_index.json",
    RECORD_FILE,
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    *(f"{component}/config.json" for component in _WEIGHTS),
)
BASE_FILES: Sequence[str] = (
    *_SETTINGS_FILES,
    *(f"{component}/{stem}.safetensors" for component, stem in _WEIGHTS.items()),
    *(f"{component}/{stem}.safetensors.index.json" for component, stem in _WEIGHTS.items()),
    *(f"{component}/{stem}-?????-of-?????.safetensors" for component, stem in _WEIGHTS.items()),
)
"""Patterns of the files that make a base."""


def resolve_base(base: str, accept: Callable[[Path], object] = lambda _: None) -> Path:
    """The local directory of a base: the shipped one's name, a directory, or a hub id (from the hub or its cache).

    accept: looks at the base's settings before any weights are fetched or read, and raises for one that cannot be
    served. Raises `CheckpointError` where there is no such base, or where a component has no safetensors weights.
    """
    if base == SHIPPED_BASE:
        path = shipped(SHIPPED_BASE)
        accept(path)
    elif Path(base).exists():
        path = Path(base)
        _refuse_single_file(path)
        accept(path)
    else:
        path = from_hub(base, _SETTINGS_FILES, "base")
        accept(path)
        path = from_hub(base, BASE_FILES, "base")
        fetch_half(base, path)
        if without := [component for component in _WEIGHTS if not _weights(path, component)[0]]:
            raise CheckpointError(
                f"base {base!r} has no safetensors weights of its {', '.join(without)}; pickled ones (.bin) are never "
                f"read, convert them: {_conversion('from_pretrained', base)}"
            )
    for component in _WEIGHTS:
        component_files(path, component)
    return path


def fetch_half(repository: str, path: Path) -> None:
    """From the hub, into the snapshot at `path`: half-precision weights of the components that have no others."""
    patterns = []
    for component, stem in _WEIGHTS.items():
        if (path / component).is_dir() and not _weights(path, component)[0]:
            patterns += [
                f"{component}/{stem}.{_HALF}.safetensors",
                f"{component}/{stem}.safetensors.index.{_HALF}.json",
                f"{component}/{stem}.{_HALF}-?????-of-?????.safetensors",
                f"{component}/{stem}-?????-of-?????.{_HALF}.safetensors",  # as older versions of diffusers name them
            ]
    if patterns:
        from_hub(repository, patterns, "base")


def _refuse_single_file(base: Path) -> None:
    """A checkpoint of one file (Stable Diffusion's first layout), or a directory of such and nothing else."""
    if base.is_file():
        found = [base]
    elif (base / "unet").is_dir():
        return
    else:
        found = sorted(path for path in base.iterdir() if path.suffix in (".safetensors", ".ckpt"))
    if found:
        raise CheckpointError(
            f"{found[0]} is a single-file checkpoint, which is not read; convert it into a directory in diffusers' "
            f"layout and name that: {_conversion('from_single_file', found[0])}"
        )


def _conversion(reader: str, source: Path | str) -> str:
    alone = "safety_checker=None, feature_extractor=None"
    code = f"from diffusers import StableDiffusionPipeline as P; P.{reader}({str(source)!r}, {alone})"
    return f"python -c \"{code}.save_pretrained('NEW')\" (it unpickles .ckpt and .bin: only files that you trust)"


def from_hub(repository: str, patterns: Sequence[str], what: str) -> Path:
    """A repository's matching files, from the hub or its cache (`HF_HUB_OFFLINE` is respected).

    what: "base" or "model", for messages. Raises `CheckpointError`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    # Of the HTTP library that this version of the hub's client stands on: httpx or httpx2.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # isort: skip

    remedy = "give an existing directory, a shipped name, or a hub id that is in the cache or can be reached"
    try:
        return Path(snapshot_download(repository, allow_patterns=list(patterns)))
    except HFValidationError as error:
        raise CheckpointError(f"{what} {repository!r} is neither a directory nor a hub id: {remedy}") from error
    except (LocalEntryNotFoundError, HfHubHTTPError, HTTPError, OSError) as error:
        name = type(error).__name__
        raise CheckpointError(f"{what} {repository!r} cannot be had from the hub ({name}): {remedy}") from error


def model_folder(model: str, patterns: Sequence[str]) -> Path:
    """A model's local directory: itself, the shipped one of this name, or matching files of a repository on the hub.

    Raises `CheckpointError`.
    """
    if Path(model).is_dir():
        return Path(model)
    if _SHIPPED_NAME.fullmatch(model) and shipped(model).is_dir():
        return shipped(model)
    path = from_hub(model, patterns, "model")
    fetch_half(model, path)
    return path


def shipped(name: str) -> Path:
    """Where the package keeps weights of this name, whether or not there are any."""
    return Path(str(files("taxadiffusion"))) / "weights" / name


def component_files(base: Path, component: str) -> tuple[Path, ...]:
    """The safetensors files of `unet`, `vae` or `text_encoder`, sorted: one, or all that an index names.

    Raises `CheckpointError` when they are missing, or when it is not clear which of several they are.
    """
    found, _ = _weights(base, component)
    if found:
        return found
    folder, stem = base / component, _WEIGHTS[component]
    if sorted(folder.glob(f"{stem}*-*-of-*.safetensors")):
        raise CheckpointError(f"{folder} holds shards of weights but no {stem}.safetensors.index.json that names them")
    missing = f"{folder} holds no {stem}.safetensors"
    if (folder / _PICKLED[component]).is_file():
        raise CheckpointError(
            f"{missing}, only {_PICKLED[component]}: pickled weights are never read; convert them: "
            f"{_conversion('from_pretrained', base)}"
        )
    raise CheckpointError(f"{missing}: {base} is not a base in diffusers' layout with safetensors weights")


def component_variant(base: Path, component: str) -> str | None:
    """What diffusers and transformers call these weights: None, or "fp16" where there are no others."""
    return _weights(base, component)[1]


def _weights(base: Path, component: str) -> tuple[tuple[Path, ...], str | None]:
    """A component's files and their variant; no files where it has none that can be read."""
    folder, stem = base / component, _WEIGHTS[component]
    for variant, dotted in ((None, ""), (_HALF, f".{_HALF}")):
        whole, index = folder / f"{stem}{dotted}.safetensors", folder / f"{stem}.safetensors.index{dotted}.json"
        if whole.is_file() and index.is_file():
            raise CheckpointError(
                f"{folder} holds both {whole.name} and {index.name}: remove the one that is not meant"
            )
        if whole.is_file():
            return (whole,), variant
        if index.is_file():
            return _shards(index), variant
    return (), None


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, beside it and nowhere else."""
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} names no files: it must hold an object weight_map")
    found = sorted({str(name) for name in names.values()})
    for name in found:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index} names {name!r}, which is no safetensors file beside it")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index.parent / name} is missing; {index.name} names {len(found)} files")
    return tuple(index.parent / name for name in found)


def base_files(base: Path) -> tuple[Path, ...]:
    """Every file of a base that is read: settings, tokenizer, and of each component the weights that count."""
    settings = {path for pattern in _SETTINGS_FILES for path in base.glob(pattern) if path.is_file()}
    weights = {path for component in _WEIGHTS for path in component_files(base, component)}
    for component, stem in _WEIGHTS.items():
        variant = component_variant(base, component)
        index = base / component / f"{stem}.safetensors.index{f'.{variant}' if variant else ''}.json"
        if index.is_file():
            weights.add(index)
    return tuple(sorted(settings | weights))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises `CheckpointError` naming the file when it is missing or is no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path} is missing") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value


def check_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Names and shapes must match exactly and every value be finite, before anything is copied.

    Raises `CheckpointError` naming the source, the weight and what was expected.
    """
    if missing := sorted(set(own) - set(state)):
        raise CheckpointError(f"{source}: weights are missing, e.g. {missing[0]} ({len(missing)} in all)")
    if unknown := sorted(set(state) - set(own)):
        raise CheckpointError(f"{source}: unknown weights, e.g. {unknown[0]} ({len(unknown)} in all)")
    for name, tensor in state.items():
        if tensor.shape != own[name].shape:
            raise CheckpointError(f"{source}: {name} has shape {[*tensor.shape]}, expected {[*own[name].shape]}")
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{source}: {name} ({tensor.dtype}) holds values that are not finite numbers")


def copy_tensors(own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str) -> None:
    """Copy `state` into `own`, all or nothing. Raises `CheckpointError`."""
    check_tensors(own, state, source)
    with torch.no_grad():
        for name, tensor in state.items():
            own[name].copy_(tensor)


def component_hash(base: Path, component: str) -> str:
    """sha256 over a component's weight bytes and its settings, and for the text encoder over its tokenizer's files."""
    settings = {k: v for k, v in read_json(base / component / "config.json").items() if not k.startswith("_")}
    contents = [*component_files(base, component)]
    if component == "text_encoder":
        contents += sorted(p for p in (base / "tokenizer").iterdir() if p.name in _TOKENIZER_FILES)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in contents:
        digest.update(path.name.encode() + _file_hash(path))
    return digest.hexdigest()


_TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer.json")


def _file_hash(path: Path) -> bytes:
    stat = path.stat()
    return _hash_of_version(path, stat.st_size, stat.st_mtime_ns)


# Size and time of change are part of the key: a file that was written anew is hashed anew.
@lru_cache(maxsize=64)
def _hash_of_version(path: Path, size: int, mtime_ns: int) -> bytes:  # noqa: ARG001
    return sha256_of(path)
