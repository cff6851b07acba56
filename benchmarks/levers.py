"""Ways to make the U-Net's forward pass faster on this machine, each in turn with the plain one.

`python -m benchmarks.levers [--json FILE]`: the nano base, 32 predictions of 32 conditions, no gradients. Each variant
must predict the same (within what its precision leaves) or is not timed; one that cannot be built here says why.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.measure import calibrate, interleaved
from taxadiffusion.attention import Conditions
from taxadiffusion.backbone import Backbone

Forward = Callable[[], Tensor]
NUM_PREDICTIONS = 32
TOLERANCE = 0.05  # of the prediction's own standard deviation


class _Prediction(nn.Module):
    """The U-Net with plain tensors in and out."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: Tensor, timesteps: Tensor, states: Tensor) -> Tensor:
        prediction: Tensor = self.unet(latents, timesteps, encoder_hidden_states=states, return_dict=False)[0]
        return prediction


def variants(
    backbone: Backbone, inputs: tuple[Tensor, Tensor, Tensor], folder: Path
) -> dict[str, Callable[[], Forward]]:
    """Name → what builds the variant."""
    latents, timesteps, states = inputs
    unet = backbone.unet

    def of(model: nn.Module, *given: Tensor) -> Forward:
        return lambda: model(*given).float()

    def channels_last() -> Forward:
        model = _Prediction(copy.deepcopy(unet).to(memory_format=torch.channels_last))
        return of(model, latents.to(memory_format=torch.channels_last), timesteps, states)

    def bfloat16() -> Forward:
        model = _Prediction(copy.deepcopy(unet).bfloat16())
        return of(model, latents.bfloat16(), timesteps, states.bfloat16())

    def compiled() -> Forward:
        forward = of(torch.compile(_Prediction(copy.deepcopy(unet))), *inputs)
        forward()  # compiles
        return forward

    def onnxruntime() -> Forward:
        import onnxruntime

        path = folder / "unet.onnx"
        torch.onnx.export(_Prediction(unet), inputs, str(path), input_names=["latents", "timesteps", "states"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        given = {"latents": latents.numpy(), "timesteps": timesteps.numpy(), "states": states.numpy()}
        return lambda: torch.from_numpy(session.run(None, given)[0])

    def openvino() -> Forward:
        import openvino

        model = openvino.compile_model(openvino.convert_model(_Prediction(unet), example_input=inputs), "CPU")
        given = [tensor.numpy() for tensor in inputs]
        return lambda: torch.from_numpy(model(given)[0])

    def shared() -> Forward:
        conditions = Conditions(states, torch.arange(len(states)), kept={})
        return lambda: backbone(latents, timesteps, conditions)

    return {
        "keys and values kept": shared,
        "channels_last": channels_last,
        "bfloat16": bfloat16,
        "torch.compile": compiled,
        "onnxruntime": onnxruntime,
        "openvino": openvino,
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.levers", description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = calibrate()
    if not before.quiet:
        print("other processes load this machine; try again", file=sys.stderr)
        return 75
    backbone = Backbone.load("nano")
    generator = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(NUM_PREDICTIONS, *backbone.latent_shape, generator=generator),
        torch.linspace(0, 999, NUM_PREDICTIONS),
        torch.randn(NUM_PREDICTIONS, backbone.num_text_tokens, backbone.width, generator=generator),
    )
    plain_model = _Prediction(backbone.unet)
    report: dict[str, Any] = {"machine": asdict(before), "levers": {}}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        expected = plain_model(*inputs)
        for name, build in variants(backbone, inputs, Path(folder)).items():
            start = time.perf_counter()
            try:
                forward = build()
            except (ImportError, RuntimeError, ValueError, TypeError) as error:
                report["levers"][name] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
                print(f"{name:20} not measured: {report['levers'][name]['failed']}")
                continue
            built_s = time.perf_counter() - start
            difference = float((forward() - expected).std() / expected.std())
            if difference > TOLERANCE:
                report["levers"][name] = {"refused": f"predicts something else, by {difference:.3f} of a deviation"}
                print(f"{name:20} predicts something else (by {difference:.3f} of a standard deviation)")
                continue
            found = interleaved(name, lambda: plain_model(*inputs), forward, 15, time.perf_counter)
            report["levers"][name] = {**asdict(found), "built_s": built_s, "difference": difference}
            saved = found.peer_s - found.ours_s
            pays = f", pays back after {built_s / saved:,.0f} passes" if saved > 0 else ""
            print(
                f"{name:20} {found.ratio:.2f}× ({found.low:.2f} to {found.high:.2f}), built in {built_s:.1f} s{pays}; "
                f"differs by {difference:.4f} of a standard deviation",
                flush=True,
            )
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
