"""Goals 10 and 13: what is frozen does not change by a bit, and nothing that is not finite is ever used or kept."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from taxadiffusion import checkpoint
from taxadiffusion.denoiser import Losses
from taxadiffusion.errors import NonFiniteError
from taxadiffusion.trainer import events
from taxadiffusion.trainer.loop import Trainer
from tests.faults.harness import Plan, Recorder, folder, tree_hash
from tests.tiny_run import loop_settings, tiny_base, tiny_denoiser, tiny_trainer

STRATEGIES = ("progressive", "all", "random", "lora_in_every_stage")


def hashes(parameters: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: hashlib.sha256(p.detach().numpy().tobytes()).hexdigest() for name, p in parameters.items()}


def everything(trainer: Trainer) -> dict[str, Tensor]:
    return dict(trainer.denoiser.named_parameters())


def frozen_stages(plan: Plan) -> Recorder:
    """Goal 10: after each stage, every parameter that it does not train is what it was; the base's files too."""
    chosen = STRATEGIES if not plan.subset else STRATEGIES[:1]
    seeds = plan.few(3, 1)
    stages = {"progressive": 3, "all": 1, "random": 1, "lora_in_every_stage": 3}
    recorder = Recorder(10, seeds * sum(stages[name] for name in chosen) + 1)
    base = tree_hash(tiny_base())
    for name in chosen:
        for seed in range(seeds):
            with folder() as place:
                frozen_run(recorder, name, seed, place)
    with recorder.case("files of the base", 0, "0 bytes changed"):
        assert tree_hash(tiny_base()) == base
    return recorder


def frozen_run(recorder: Recorder, name: str, seed: int, place: Path) -> None:
    settings = loop_settings(seed=seed, training={"merge_lora": seed % 2 == 0})
    trainer = tiny_trainer(place / "run", steps=3, strategy=name, settings=settings, denoiser=tiny_denoiser())
    before: dict[str, str] = {}
    for event in trainer.run():
        if isinstance(event, events.StageStarted):
            trainer.denoiser.backbone.unmerge_lora()
            before = hashes(everything(trainer))
            stage = next(stage for stage in trainer.plan if stage.name == event.stage)
            trainer.denoiser.prepare_stage(stage, merge_lora=settings.training.merge_lora)
        if isinstance(event, events.StageDone):
            with recorder.case(f"{name}, stage {event.stage}", seed, "0 bits of frozen parameters changed") as case:
                trainer.denoiser.backbone.unmerge_lora()
                after = hashes(everything(trainer))
                groups = trainer.denoiser.groups()
                learning = {key for group in stage.trains for key in groups[group]}
                changed = {key for key in after if after[key] != before[key]}
                assert changed <= learning, f"frozen and changed: {sorted(changed - learning)[:3]}"
                assert changed, "nothing was trained at all"
                case.observed = f"{len(after) - len(learning)} frozen tensors unchanged, {len(changed)} trained"


def _poison(tensor: Tensor, rng: random.Random) -> Tensor:
    flat = tensor.detach().clone().reshape(-1)
    flat[rng.randrange(flat.numel())] = rng.choice((math.nan, math.inf, -math.inf))
    return flat.reshape(tensor.shape)


def poison_loss(trainer: Trainer, step: int, rng: random.Random) -> None:
    original = trainer.denoiser.losses

    def poisoned(losses: Losses) -> Losses:
        fault = _poison(losses.plain, rng) * 0
        return Losses(losses.plain + fault, losses.weighted + fault)

    trainer.denoiser.losses = _at(trainer, step, original, poisoned)  # type: ignore[method-assign]


def poison_latents(trainer: Trainer, step: int, rng: random.Random) -> None:
    from dataclasses import replace

    original = trainer.gradients.losses

    def losses(stage: Any, batch: Any, **options: Any) -> Any:
        if batch.step == step:
            batch = replace(batch, latents=_poison(batch.latents, rng))
        return original(stage, batch, **options)

    trainer.gradients.losses = losses  # type: ignore[method-assign]


def poison_noise(trainer: Trainer, step: int, rng: random.Random) -> None:
    from dataclasses import replace

    original = trainer.gradients.losses

    def losses(stage: Any, batch: Any, **options: Any) -> Any:
        if batch.step == step:
            batch = replace(batch, noise=_poison(batch.noise, rng))
        return original(stage, batch, **options)

    trainer.gradients.losses = losses  # type: ignore[method-assign]


def poison_prediction(trainer: Trainer, step: int, rng: random.Random) -> None:
    original = trainer.denoiser.backbone.forward
    trainer.denoiser.backbone.forward = _at(
        trainer, step, original, lambda prediction: prediction + _poison(prediction, rng) * 0
    )  # type: ignore[method-assign]


def poison_gradient(trainer: Trainer, step: int, rng: random.Random) -> None:
    """The loss is finite, one parameter's gradient is not."""
    for parameters in trainer.denoiser.groups().values():
        for parameter in parameters.values():
            parameter.requires_grad_(True)
            parameter.register_hook(
                _at(trainer, step, lambda gradient: gradient, lambda gradient: _poison(gradient, rng))
            )


def _at(trainer: Trainer, step: int, original: Callable[..., Any], change: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda *arguments: change(original(*arguments)) if trainer.progress.step == step else original(*arguments)


SOURCES: dict[str, Callable[[Trainer, int, random.Random], None]] = {
    "loss": poison_loss,
    "latents": poison_latents,
    "noise": poison_noise,
    "prediction": poison_prediction,
    "gradient": poison_gradient,
}


def not_finite(plan: Plan) -> Recorder:
    """Goal 13."""
    each = plan.few(18, 1)
    averages = plan.few(10, 1)
    recorder = Recorder(13, each * len(SOURCES) + averages)
    for source, inject in SOURCES.items():
        for seed in range(each):
            poisoned_step(recorder, source, inject, seed)
    for seed in range(averages):
        poisoned_average(recorder, seed)
    return recorder


def poisoned_step(
    recorder: Recorder, source: str, inject: Callable[[Trainer, int, random.Random], None], seed: int
) -> None:
    rng = random.Random(f"{source}-{seed}")
    step = rng.randrange(0, 9)
    expected = "refused before the update; no artefact that is not finite"
    with recorder.case(f"{source} at step {step}", seed, expected) as case, folder() as place:
        trainer = tiny_trainer(
            place / "run", steps=3, settings=loop_settings(checkpoint={"every_steps": 1}), denoiser=tiny_denoiser()
        )
        inject(trainer, step, rng)
        before: dict[str, str] = {}
        refused = []
        for event in trainer.run():
            if isinstance(event, events.StepRefused):
                refused.append(event)
                assert hashes(everything(trainer)) == before, "a parameter was changed"
            if isinstance(event, events.StageStarted | events.StepDone):
                before = hashes(everything(trainer))
        assert [event.step for event in refused] == [step + 1], f"refused at {[event.step for event in refused]}"
        assert refused[0].rows, "no sample was named"
        only_finite(place / "run")
        case.observed = f"{refused[0].reason}, rows {list(refused[0].rows)[:4]}"


def poisoned_average(recorder: Recorder, seed: int) -> None:
    """The moving average itself is damaged: the next commit refuses it and the run ends with 70."""
    rng = random.Random(seed)
    step = rng.randrange(2, 8)
    with (
        recorder.case(f"moving average at step {step}", seed, "exit 70; nothing of it is committed"),
        folder() as place,
    ):
        trainer = tiny_trainer(
            place / "run", steps=3, settings=loop_settings(checkpoint={"every_steps": 1}), denoiser=tiny_denoiser()
        )
        original = trainer.history.commit

        def commit(progress: Any, trained: Any, optimiser: Any) -> Any:
            if progress.step >= step and optimiser is not None:
                optimiser.average[0].copy_(_poison(optimiser.average[0], rng))
            return original(progress, trained, optimiser)

        trainer.history.commit = commit  # type: ignore[method-assign]
        try:
            for _ in trainer.run():
                pass
        except NonFiniteError as error:
            code = error.exit_code
        else:
            code = 0
        assert code == 70
        only_finite(place / "run")


def only_finite(run_dir: Path) -> None:
    """Every tensor of every commit is finite, and every commit verifies."""
    for path in checkpoint.candidates(run_dir):
        manifest = checkpoint.verify(path)
        committed = checkpoint.Committed(path, manifest)
        for name in manifest.files:
            stem, _, ending = name.partition(".")
            if ending == "safetensors":
                assert all(bool(torch.isfinite(tensor).all()) for tensor in committed.tensors(stem).values()), path
