"""Weights of the feature networks: from a file without running anything in it, or fetched, with one clear refusal."""

from __future__ import annotations

import hashlib
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from urllib.error import URLError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from taxadiffusion.errors import SettingsError


def library(module: str, extractor: str) -> ModuleType:
    """The optional library `module`, or a `SettingsError` that says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"extractor {extractor} needs {module}, which is not installed; pip install 'taxadiffusion[eval]'"
        ) from error


def read_state(path: Path, extractor: str) -> dict[str, torch.Tensor]:
    """The tensors of a `.safetensors` or PyTorch file; a file that holds anything but tensors is refused, not run."""
    if not path.is_file():
        raise SettingsError(f"extractor {extractor}: weights {path} do not exist; give the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, SafetensorError) as error:
        raise SettingsError(f"extractor {extractor}: {path} is not a file of plain tensors ({error})") from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise SettingsError(f"extractor {extractor}: {path} is not a state dictionary of tensors")
    return state


def fetched(fetch: Callable[[], dict[str, torch.Tensor]], extractor: str, what: str) -> dict[str, torch.Tensor]:
    """What `fetch` downloads; `SettingsError` where there is no network."""
    try:
        return fetch()
    except (URLError, OSError) as error:
        raise SettingsError(
            f"extractor {extractor}: no --weights were given and {what} cannot be downloaded ({error}); "
            f"download it elsewhere and give its path with --weights, or use another extractor (onnx:FILE)"
        ) from error


def state_hash(network: torch.nn.Module) -> str:
    """sha256 over names, shapes and bytes of all weights: one network has one hash, whatever file it came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
