"""Ways to make our code faster on this machine, each in turn with the plain one.

`python -m benchmarks.levers [--json FILE] [--compile-training]`: the shipped base at 64 px. First the U-Net's forward
pass alone, 32 predictions of 32 conditions: each variant must predict the same (within what its precision leaves) or is
not timed; one that cannot be built here says why. Then training steps, and whole pictures of the shipped adapter, where
approximations say how far they move a picture.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import PyramidAttentionBroadcastConfig, apply_pyramid_attention_broadcast
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.ours import OurStep, build_caches
from benchmarks.timing import Ratio, calibrate, interleaved, timed
from benchmarks.workload import shipped
from taxadiffusion.adapter import open_model
from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.onnx import ExportedPrediction, OnnxUnet
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.asked import species_of
from taxadiffusion.sampler import Request, Sampler
from taxadiffusion.stages import Stage

Forward = Callable[[], Tensor]
NUM_PREDICTIONS = 32
NUM_PICTURES, NUM_STEPS = 16, 25
FULL_GUIDANCE, SHORT_GUIDANCE = Guidance(6.0), Guidance(6.0, interval=(0.2, 0.9))
TOLERANCE = 0.05  # of the prediction's own standard deviation


def variants(backbone: Backbone, inputs: tuple[Tensor, Tensor, Tensor]) -> dict[str, Callable[[], Forward]]:
    """Name → what builds the variant."""
    latents, timesteps, states = inputs
    unet = backbone.unet

    def of(model: nn.Module, *given: Tensor) -> Forward:
        return lambda: model(*given).float()

    def channels_last() -> Forward:
        model = ExportedPrediction(copy.deepcopy(unet).to(memory_format=torch.channels_last))
        return of(model, latents.to(memory_format=torch.channels_last), timesteps, states)

    def bfloat16() -> Forward:
        model = ExportedPrediction(copy.deepcopy(unet).bfloat16())
        return of(model, latents.bfloat16(), timesteps, states.bfloat16())

    def compiled() -> Forward:
        forward = of(torch.compile(ExportedPrediction(copy.deepcopy(unet))), *inputs)
        forward()  # compiles
        return forward

    def onnxruntime() -> Forward:
        engine = OnnxUnet(unet, backbone.latent_shape, backbone.num_text_tokens)
        return lambda: engine(*inputs)

    def openvino() -> Forward:
        import openvino

        model = openvino.compile_model(openvino.convert_model(ExportedPrediction(unet), example_input=inputs), "CPU")
        given = [tensor.numpy() for tensor in inputs]
        return lambda: torch.from_numpy(model(given)[0])

    def shared() -> Forward:
        conditions = Conditions(states, torch.arange(len(states), device=states.device), kept={})
        return lambda: backbone(latents, timesteps, conditions)

    return {
        "keys and values kept": shared,
        "channels_last": channels_last,
        "bfloat16": bfloat16,
        "torch.compile": compiled,
        "onnxruntime": onnxruntime,
        "openvino": openvino,
    }


def forward_levers(report: dict[str, Any]) -> None:
    """Fills `report` with a ratio, or a reason, for each variant of the forward pass."""
    backbone = Backbone.load(SHIPPED_BASE)
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(NUM_PREDICTIONS, *backbone.latent_shape, generator=generator),
        torch.linspace(0, 999, NUM_PREDICTIONS),
        torch.randn(NUM_PREDICTIONS, backbone.num_text_tokens, backbone.width, generator=generator),
    )
    plain_model = ExportedPrediction(backbone.unet)
    with torch.inference_mode():
        expected = plain_model(*inputs)
        for name, build in variants(backbone, inputs).items():
            start = time.perf_counter()
            try:
                forward = build()
            except (ImportError, RuntimeError, ValueError, TypeError, SettingsError) as error:
                report[name] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                print(f"{name:24} not measured: {report[name]['failed']}")
                continue
            built_s = time.perf_counter() - start
            difference = float((forward() - expected).std() / expected.std())
            if difference > TOLERANCE:
                report[name] = {"refused": f"predicts something else, by {difference:.3f} of a deviation"}
                print(f"{name:24} predicts something else (by {difference:.3f} of a standard deviation)")
                continue
            found = interleaved(name, lambda: plain_model(*inputs), forward, 15, time.perf_counter)
            report[name] = {**asdict(found), "built_s": built_s, "difference": difference}
            saved = found.peer_s - found.ours_s
            pays = f", pays back after {built_s / saved:,.0f} passes" if saved > 0 else ""
            _tell(found, f"built in {built_s:.1f} s{pays}; differs by {difference:.4f} of a standard deviation")


def training_levers(report: dict[str, Any], compiled: bool) -> None:
    """The last stage's step, and the first's, in another memory format; in bfloat16; and compiled (minutes)."""
    workload = shipped()
    with tempfile.TemporaryDirectory() as folder:
        build_caches(workload, Path(folder), None)
        plain, other = OurStep(workload, Path(folder)), OurStep(workload, Path(folder))
        other.backbone.unet.to(memory_format=torch.channels_last)
        for stage in (workload.stages()[0], workload.stages()[-1]):
            _training(report, f"channels_last, {stage.name}", plain, other, stage)
        half = OurStep(replace(workload, precision=torch.bfloat16), Path(folder))
        for stage in (workload.stages()[0], workload.stages()[-1]):
            _training(report, f"bfloat16, {stage.name}", plain, half, stage)
        if compiled:
            other = OurStep(workload, Path(folder))
            forward = torch.compile(other.backbone.unet.forward)

            def predict(latents: Tensor, timesteps: Tensor, conditions: Conditions) -> Tensor:
                # Expanded: the number of distinct conditions changes from batch to batch, compiled shapes do not.
                prediction: Tensor = forward(latents, timesteps, encoder_hidden_states=conditions.expanded()).sample
                return prediction

            other.denoiser.backbone.forward = predict  # type: ignore[method-assign, assignment]
            for stage in (workload.stages()[0], workload.stages()[-1]):
                _training(report, f"torch.compile, {stage.name}", plain, other, stage)


def _training(report: dict[str, Any], name: str, plain: OurStep, other: OurStep, stage: Stage) -> None:
    plain.begin(stage)
    other.begin(stage)
    first_s = timed(other, time.perf_counter)
    found = interleaved(f"step: {name}", plain, other, 8, time.perf_counter)
    report[found.name] = {**asdict(found), "built_s": first_s}
    _tell(found, f"first step {first_s:.1f} s")


def sampling_levers(report: dict[str, Any]) -> None:
    """Guided pictures of the shipped adapter: fewer steps, diffusers' feature caching, and the share of decoding."""
    adapter = open_model("reef-fish")
    denoiser = adapter.denoiser
    taxa = species_of(adapter)[:NUM_PICTURES]

    def pictures() -> NDArray[np.float64]:
        return _pictures(denoiser, taxa, NUM_STEPS, FULL_GUIDANCE)

    def measured(name: str, ours: Callable[[], NDArray[np.float64]], plain: Callable[[], object] = pictures) -> None:
        found = interleaved(f"pictures: {name}", plain, ours, 3, time.perf_counter)
        levels = float(np.abs(ours() - expected).mean())
        report[found.name] = {**asdict(found), "levels": levels}
        _tell(found, f"pictures differ by {levels:.1f} levels of 256")

    expected = pictures()
    measured("15 steps, guided in 0.2-0.9", lambda: _pictures(denoiser, taxa, 15, SHORT_GUIDANCE))
    latents = torch.randn(NUM_PICTURES, *denoiser.backbone.latent_shape)
    decoding = interleaved(
        "pictures: decoding", pictures, lambda: denoiser.backbone.decode(latents), 3, time.perf_counter
    )
    report[decoding.name] = {"share": decoding.ours_s / decoding.peer_s}
    print(f"{decoding.name:40} {decoding.ours_s / decoding.peer_s:.1%} of sampling: all that overlapping could save")
    caching = open_model("reef-fish").denoiser
    reset = _cache_features(caching)

    def cached() -> NDArray[np.float64]:
        reset()
        return _pictures(caching, taxa, NUM_STEPS, FULL_GUIDANCE)

    measured("attention every second step", cached)


def _pictures(denoiser: Denoiser, taxa: Sequence[Lineage], num_steps: int, guidance: Guidance) -> NDArray[np.float64]:
    requests = [Request(taxon, 1, guidance) for taxon in taxa]
    samples = Sampler(denoiser)(requests, num_steps=num_steps, batch_size=len(requests))
    return np.stack([sample.image for sample in samples]).astype(np.float64)


def _cache_features(denoiser: Denoiser) -> Callable[[], None]:
    """diffusers' pyramid attention broadcast on self- and cross-attention; returns what forgets the kept features."""
    timestep = [0.0]
    predict = denoiser.backbone.forward

    def noted(latents: Tensor, timesteps: Tensor, conditions: Tensor | Conditions) -> Tensor:
        timestep[0] = float(timesteps[0])
        # Its hooks stand around the attention modules, where keys and values are not handed in.
        states = conditions.expanded() if isinstance(conditions, Conditions) else conditions
        return predict(latents, timesteps, states)

    denoiser.backbone.forward = noted  # type: ignore[method-assign, assignment]
    everywhere = (-1, 1001)
    unet = denoiser.backbone.unet
    apply_pyramid_attention_broadcast(
        unet,
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            cross_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=everywhere,
            cross_attention_timestep_skip_range=everywhere,
            current_timestep_callback=lambda: timestep[0],
        ),
    )
    hooks = [module._diffusers_hook for module in unet.modules() if hasattr(module, "_diffusers_hook")]

    def reset() -> None:
        for hook in hooks:
            hook.reset_stateful_hooks()

    return reset


def _tell(found: Ratio, more: str) -> None:
    print(f"{found.name:40} {found.ratio:.2f}× ({found.low:.2f} to {found.high:.2f}), {more}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.levers", description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--compile-training", action="store_true", help="also compile training steps: takes minutes")
    args = parser.parse_args()
    before = calibrate()
    if not before.quiet:
        print("other processes load this machine; try again", file=sys.stderr)
        return 75
    report: dict[str, Any] = {"machine": asdict(before), "levers": {}}
    forward_levers(report["levers"])
    training_levers(report["levers"], args.compile_training)
    sampling_levers(report["levers"])
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
