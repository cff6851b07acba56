"""What a U-Net predicts with beside plain torch: ONNX Runtime (on a CPU, the same to rounding), or compiled code."""

# Letters: B batch, C latent channels, H W latent size, T tokens, D width.
from __future__ import annotations

import importlib
import logging
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from taxadiffusion.errors import SettingsError

EngineName = Literal["torch", "bfloat16", "onnxruntime", "compiled"]

_INPUTS = ("latents", "timesteps", "states")
_NEEDED = ("onnx", "onnxscript", "onnxruntime")


_COMPILED_CODE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch's own name


def keep_compiled_code() -> Path:
    """Let `torch.compile` keep what it builds in the user's cache folder, so that it is there after a restart, and on a
    node whose temporary folder is new. A folder that the environment names already is left; returns the one in use."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.setdefault(_COMPILED_CODE, str(home / "taxadiffusion" / "compiled")))


def only_on_cpu(engine: EngineName) -> str | None:
    """The engine in words, where it computes on a CPU alone (`base.device.chosen_device`)."""
    return f"--engine {engine}" if engine == "onnxruntime" else None


class OnnxUnet:
    """The U-Net's prediction as its weights are now (a merged LoRA included), for any batch size and number of tokens.

    Making one writes the graph to a temporary folder and takes seconds for a small base, so it pays from some hundred
    predictions on. Raises `SettingsError` where a package is missing or the U-Net is not in float32 on a CPU.
    """

    def __init__(self, unet: Any, latent_shape: tuple[int, int, int], num_tokens: int) -> None:
        if unet.dtype != torch.float32 or unet.device.type != "cpu":
            raise SettingsError(
                f"engine onnxruntime predicts in float32 on a CPU, not in {unet.dtype} on {unet.device}"
            )
        runtime = _needed()
        width = int(unet.config.cross_attention_dim)
        given = (torch.zeros(2, *latent_shape), torch.zeros(2), torch.zeros(2, num_tokens, width))
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "unet.onnx"
            _export(ExportedPrediction(unet), given, path)
            self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        """(B, C, H, W), (B,), (B, T, D) → float32 (B, C, H, W)."""
        given = (latents.float(), timesteps.float(), states.float())
        arrays = {name: tensor.contiguous().numpy() for name, tensor in zip(_INPUTS, given, strict=True)}
        return torch.from_numpy(self._session.run(None, arrays)[0])


class ExportedPrediction(nn.Module):
    """The U-Net with plain tensors in and out."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        prediction: Tensor = self.unet(latents, timesteps, encoder_hidden_states=states, return_dict=False)[0]
        return prediction


def _needed() -> Any:
    for name in _NEEDED:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            raise SettingsError(
                f"engine onnxruntime needs {name}; install it with: pip install 'taxadiffusion[onnx]'"
            ) from error
    return importlib.import_module("onnxruntime")


def _export(model: nn.Module, given: tuple[Tensor, ...], path: Path) -> None:
    batch, tokens = torch.export.Dim("batch"), torch.export.Dim("tokens")
    latents, timesteps, states = {0: batch}, {0: batch}, {0: batch, 1: tokens}
    exporters = logging.getLogger("torch.onnx")
    level = exporters.level
    exporters.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecations: nobody here can act on them
            torch.onnx.export(
                model,
                given,
                str(path),
                input_names=list(_INPUTS),
                dynamic_shapes=(latents, timesteps, states),
                dynamo=True,
                verbose=False,
            )
    finally:
        exporters.setLevel(level)
