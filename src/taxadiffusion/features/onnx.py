"""Any network in an ONNX file as a feature extractor; its input and output are read from the file."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from taxadiffusion.errors import SettingsError

# B batch, H height, W width, D feature width


class OnnxExtractor:
    """uint8 images (B, 3, H, W) → float32 features (B, D), by the network in `path`.

    The network takes one input of shape (B, 3, H, W): uint8 as it is, or float in [0, 1]. Its output named `features`
    is used, else its first of shape (B, D). device: "cpu", or any other for whatever onnxruntime has. Raises
    `SettingsError` for a missing file, a missing onnxruntime, or a network of another shape.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        if not path.is_file():
            raise SettingsError(f"extractor onnx:{path}: no such file; give the path of an ONNX network")
        try:
            runtime = importlib.import_module("onnxruntime")
        except ModuleNotFoundError as error:
            raise SettingsError(
                "extractor onnx needs onnxruntime; install it with: pip install 'taxadiffusion[eval]'"
            ) from error
        options = runtime.SessionOptions()
        options.log_severity_level = 3
        state = runtime.capi.onnxruntime_pybind11_state
        faults = (state.Fail, state.InvalidArgument, state.InvalidGraph, state.InvalidProtobuf, state.NotImplemented)
        try:
            providers = ["CPUExecutionProvider"] if device == "cpu" else runtime.get_available_providers()
            self._session = runtime.InferenceSession(str(path), options, providers=providers)
        except faults as error:
            raise SettingsError(f"extractor onnx:{path}: not a readable ONNX network ({error})") from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].shape[1] != 3:
            shapes = ", ".join(f"{i.name} {i.shape}" for i in inputs)
            raise SettingsError(f"extractor onnx:{path}: needs one input of shape (B, 3, H, W), the file has {shapes}")
        self._input = inputs[0]
        flat = [o for o in outputs if len(o.shape) == 2]
        named = [o for o in flat if o.name == "features"] or flat
        if not named:
            raise SettingsError(f"extractor onnx:{path}: no output of shape (B, D) to take features from")
        self._output = named[0].name
        self.name = f"onnx:{path.stem}"
        self.content_hash = hashlib.sha256(path.read_bytes()).hexdigest()
        height, width = self._input.shape[2:]
        self._size = (width, height) if isinstance(height, int) and isinstance(width, int) else None

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 (B, 3, H, W) → float32 (B, D). Images are resized (bicubic) where the network's input size is fixed."""
        if self._size is not None and self._size != (images.shape[3], images.shape[2]):
            images = np.stack([_resized(image, self._size) for image in images])
        pixels = images if self._input.type == "tensor(uint8)" else images.astype(np.float32) / 255
        (features,) = self._session.run([self._output], {self._input.name: pixels})
        return np.asarray(features, dtype=np.float32)


def _resized(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """One (3, H, W) image at (width, height) `size`."""
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC), dtype=np.uint8).transpose(2, 0, 1)
