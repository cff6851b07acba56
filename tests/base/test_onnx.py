"""Laws of the other engine: the same pictures, the weights of the moment, one clear message where it cannot be had."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import lora_parameters
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import Context, Guidance
from taxadiffusion.sampler import Request, Sampler
from tests.tiny_base import write_tiny_base
from tests.tiny_sampler import CLARKII, CORNUTUS, make


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Denoiser:
    return make(write_tiny_base(tmp_path_factory.mktemp("base"), "v_prediction"))


def inputs(
    backbone: Backbone, batch: int, num_tokens: int | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch)
    return (
        torch.randn(batch, *backbone.latent_shape, generator=generator),
        torch.linspace(1, 900, batch).long(),
        torch.randn(batch, num_tokens or backbone.num_text_tokens, backbone.width, generator=generator),
    )


def test_predictions_are_torchs_for_any_batch_and_any_number_of_tokens_and_of_the_weights_on_entry(
    denoiser: Denoiser,
) -> None:
    """A class embedding has few tokens, a long prompt those of several texts."""
    backbone = denoiser.backbone
    asked = [(1, None), (2, None), (5, None), (2, 1), (2, 4), (2, 2 * backbone.num_text_tokens + 1)]
    with torch.no_grad(), backbone.on_onnxruntime(backbone.latent_shape):
        found = [backbone(*inputs(backbone, *one)) for one in asked]
    with torch.no_grad():
        before = [backbone(*inputs(backbone, *one)) for one in asked]
        for prediction, plain in zip(found, before, strict=True):
            assert torch.allclose(prediction, plain, atol=1e-4 * float(plain.std()))
        for parameter in lora_parameters(backbone.unet).values():
            parameter.mul_(2)
        changed = backbone(*inputs(backbone, 2))
        with backbone.on_onnxruntime(backbone.latent_shape):
            again = backbone(*inputs(backbone, 2))
    assert torch.allclose(again, changed, atol=1e-4 * float(changed.std()))
    assert not torch.allclose(again, before[1], atol=0.01)


def test_pictures_are_the_same_to_rounding(denoiser: Denoiser) -> None:
    requests = [Request(CLARKII, 1, Guidance(4.0, "order", (0.3, 0.8))), Request(CORNUTUS, 2), Request(CLARKII, 3)]
    requests[1] = replace(requests[1], context=Context("over pink"))

    def pictures(engine: Any) -> list[np.ndarray]:
        samples = Sampler(denoiser, engine=engine)(requests, num_steps=4, batch_size=2)  # the last batch is smaller
        return [sample.image.astype(int) for sample in samples]

    for ours, plain in zip(pictures("onnxruntime"), pictures("torch"), strict=True):
        assert np.abs(ours - plain).max() <= 2
    assert denoiser.backbone(*inputs(denoiser.backbone, 1)).shape[0] == 1  # torch again


def test_other_precisions_and_a_missing_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = make(write_tiny_base(tmp_path))
    half = Backbone.load(str(tmp_path), dtype=torch.bfloat16)
    with pytest.raises(SettingsError, match="float32 on a CPU"), half.on_onnxruntime(half.latent_shape):
        pass
    real = importlib.import_module

    def without(name: str, *args: Any) -> Any:
        if name == "onnxscript":
            raise ModuleNotFoundError(name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(SettingsError, match=r"needs onnxscript.*taxadiffusion\[onnx\]"):
        next(iter(Sampler(denoiser, engine="onnxruntime")([Request(CLARKII, 1)], num_steps=1)))
    assert not denoiser.backbone.lora_is_merged
