"""Every ratio of one workload, both sides checked to compute the same before they are timed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.ours import OurStep, UncachedStep, build_caches, longest_name, our_pictures
from benchmarks.peers import DiffusersLoRAStep, DiffusersPictures, PublishedStep, published_pictures
from benchmarks.roofline import Roofline, roofline
from benchmarks.timing import Clock, Ratio, interleaved, interleaved_all, timed
from benchmarks.workload import RANKS, TAXA, Workload, without_dropout
from taxadiffusion.base.text import rank_text
from taxadiffusion.condition import PromptConditioner, PromptSettings
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.guidance import Guidance
from taxadiffusion.stages import Stage

LOSS_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 3e-2}
"""Relative: cached latents and name states are float16, and a base in bfloat16 rounds further."""

PICTURE_TOLERANCE = {torch.float32: 2.0, torch.bfloat16: 12.0}
"""Mean absolute difference of two pictures of a seed, in levels of 256."""

FULL_GUIDANCE = Guidance(9.0, RANKS[0])
SHORT_GUIDANCE = Guidance(9.0, RANKS[0], interval=(0.2, 0.9))
SHORT_STEPS = 0.6
"""Share of the published number of steps (15 of 25), with guidance inside an interval only."""

STEPS, IMAGES, PICTURES = 2000, 1000, 100
"""Of the end-to-end row: optimizer steps over all stages, images to cache, pictures in the end."""


class NotTheSameError(RuntimeError):
    """Two sides that are compared do not compute the same."""


@dataclass(frozen=True, slots=True)
class Compared:
    ratios: tuple[Ratio, ...]
    rooflines: dict[str, Roofline]
    images_per_s: dict[str, float]
    """Ours: training in the first and the last stage, and sampling."""


def compare(workload: Workload, folder: Path, num_pairs: int, clock: Clock, *, compiled: bool = False) -> Compared:
    """All ratios and both stages' rooflines; `compiled`: also with `base.compile`, which takes minutes to build.

    Raises `NotTheSameError`.
    """
    short = longest_name(workload)
    folders = {None: folder / "full", short: folder / "short"}
    for num_tokens, place in folders.items():
        place.mkdir()
        build_caches(workload, place, num_tokens)
    published = PublishedStep(workload)
    ours = OurStep(workload, folders[None])
    ratios = list(training(workload, published, ours, num_pairs, clock))
    ratios += caches(workload, UncachedStep(workload, folders[None]), ours, num_pairs, clock)
    rooflines = {}
    for stage in (workload.stages()[0], workload.stages()[-1]):
        ours.begin(stage)
        rooflines[f"{stage.name}{workload.suffix}"] = roofline(ours, clock, num_pairs)
    ratios += sampling(workload, published, ours, num_pairs, clock)
    if workload.end_to_end_share:
        ratios.append(end_to_end(workload, published, ours, clock))
    else:
        ratios.append(_composed(workload, ratios, ours, clock))
    del ours
    if not workload.suffix:  # of the shipped base at 64 px alone: its step is short enough for the text to weigh
        ratios += trimmed(workload, published, OurStep(workload, folders[short], short), num_pairs, clock)
    if compiled:
        ours = OurStep(workload, folders[None])
        ours.backbone.compile()
        ratios += training_compiled(workload, published, ours, num_pairs, clock)
    return Compared(tuple(ratios), rooflines, _images_per_s(workload, ratios))


def training(
    workload: Workload, published: PublishedStep, ours: OurStep, num_pairs: int, clock: Clock
) -> Iterator[Ratio]:
    """Against the published step in both stages, and against diffusers' LoRA step in the first."""
    first, last = workload.stages()[0], workload.stages()[-1]
    for label, stage in (("stage0", first), ("last_stage", last)):
        begin_alike(published, ours, stage)
        yield interleaved(f"train_{label}_vs_published{workload.suffix}", published, ours, num_pairs, clock)
    ours.begin(first)
    lora = DiffusersLoRAStep(workload, ours.backbone)
    check_lora(workload, lora, ours)
    yield interleaved(f"train_stage0_vs_diffusers_lora{workload.suffix}", lora, ours, num_pairs, clock)


def training_compiled(
    workload: Workload, published: PublishedStep, ours: OurStep, num_pairs: int, clock: Clock
) -> Iterator[Ratio]:
    """The same ratios with our U-Net compiled; the step that compiles it does not count."""
    for label, stage in (("stage0", workload.stages()[0]), ("last_stage", workload.stages()[-1])):
        begin_alike(published, ours, stage)
        yield interleaved(f"train_{label}_vs_published_compiled{workload.suffix}", published, ours, num_pairs, clock)


def caches(workload: Workload, off: UncachedStep, on: OurStep, num_pairs: int, clock: Clock) -> Iterator[Ratio]:
    """Latents and name states computed in every step against read: all else is the same code."""
    first, last = workload.stages()[0], workload.stages()[-1]
    for label, stage in (("stage0", first), ("last_stage", last)):
        begin_alike(off, on, stage)
        yield interleaved(f"train_{label}_caches_off_vs_on{workload.suffix}", off, on, num_pairs, clock)


def trimmed(
    workload: Workload, published: PublishedStep, ours: OurStep, num_pairs: int, clock: Clock
) -> Iterator[Ratio]:
    """The same with `base.num_tokens` set to the longest name: another condition than the published one (padding is
    left out), so it is a setting, and the losses differ."""
    first, last = workload.stages()[0], workload.stages()[-1]
    for label, stage in (("stage0", first), ("last_stage", last)):
        published.begin(stage)
        ours.begin(stage)
        yield interleaved(f"train_{label}_vs_published_trimmed{workload.suffix}", published, ours, num_pairs, clock)
    ours.begin(first)
    lora = DiffusersLoRAStep(workload, workload.backbone(workload.precision))  # with all of its tokens
    yield interleaved(f"train_stage0_vs_diffusers_lora_trimmed{workload.suffix}", lora, ours, num_pairs, clock)


def begin_alike(published: PublishedStep | UncachedStep, ours: OurStep, stage: Stage) -> None:
    """Both at the start of a stage, with the same weights. Raises `NotTheSameError` where losses differ."""
    ours.denoiser.load_state(published.denoiser.state(), "the published step")
    published.begin(stage)
    ours.begin(stage)
    with torch.no_grad(), without_dropout(published.denoiser), without_dropout(ours.denoiser):
        theirs, mine = float(published.loss()), float(ours.loss())
    _check(f"stage {stage.name}", theirs, mine, ours.workload.precision)


def check_lora(workload: Workload, lora: DiffusersLoRAStep, ours: OurStep) -> None:
    """With a caption as the condition, our denoiser's loss is that of diffusers' step."""
    plain = Denoiser(ours.backbone, PromptConditioner(RANKS, lora.encoder, PromptSettings()))
    with torch.no_grad():
        mine = float(plain(ours.batch()).mean())
        _check("diffusers' LoRA step", float(lora.loss()), mine, workload.precision)


def _check(what: str, theirs: float, mine: float, precision: torch.dtype) -> None:
    if abs(theirs - mine) > LOSS_TOLERANCE[precision] * abs(theirs):
        raise NotTheSameError(f"{what}: the peer's loss is {theirs}, ours {mine}; the two do not compute the same")


def sampling(
    workload: Workload, published: PublishedStep, ours: OurStep, num_pairs: int, clock: Clock
) -> Iterator[Ratio]:
    """Guided pictures: the same ones, and with fewer evaluations."""
    begin_alike(published, ours, workload.stages()[-1])
    requests = workload.requests(FULL_GUIDANCE)

    def theirs() -> list[np.ndarray]:
        return published_pictures(published, requests, workload.num_steps)

    def mine() -> list[np.ndarray]:
        return [sample.image for sample in our_pictures(ours, requests, workload.num_steps)]

    check_pictures("the published inference", theirs(), mine(), workload.precision)
    short = workload.requests(SHORT_GUIDANCE)
    num_steps = max(1, round(SHORT_STEPS * workload.num_steps))
    yield from interleaved_all(
        theirs,
        {
            f"sample_vs_published{workload.suffix}": mine,
            f"sample_fewer_evaluations_vs_published{workload.suffix}": lambda: our_pictures(ours, short, num_steps),
        },
        _fewer(num_pairs),
        clock,
        warm=True,
    )
    ours.backbone.unmerge_lora()
    with torch.no_grad(), without_dropout(ours.denoiser):
        targets = ours.denoiser.conditioner([request.lineage for request in requests])
        bases = ours.denoiser.conditioner([request.lineage.truncated(RANKS[0]) for request in requests])
    pipeline = DiffusersPictures(ours.backbone)

    def diffusers() -> list[np.ndarray]:
        return pipeline(
            requests, targets, bases, workload.size_px, workload.num_steps, batch_size=workload.sampling_batch
        )

    check_pictures("StableDiffusionPipeline", diffusers(), mine(), workload.precision)
    name = f"sample_vs_diffusers{workload.suffix}"
    yield from interleaved_all(diffusers, {name: mine}, _fewer(num_pairs), clock, warm=True)


def check_pictures(what: str, theirs: list[np.ndarray], mine: list[np.ndarray], precision: torch.dtype) -> None:
    """Raises `NotTheSameError` where pictures of one seed differ."""
    differences = [float(np.abs(a.astype(float) - b.astype(float)).mean()) for a, b in zip(theirs, mine, strict=True)]
    if max(differences) > PICTURE_TOLERANCE[precision]:
        raise NotTheSameError(f"{what}: pictures of the same seed differ by {max(differences):.1f} levels of 256")


def _fewer(num_pairs: int) -> int:
    """Sampling is long, so its pairs are fewer."""
    return max(2, num_pairs // 6)


def _images_per_s(workload: Workload, ratios: list[Ratio]) -> dict[str, float]:
    counts = {
        "train_stage0_vs_published": workload.batch_size,
        "train_last_stage_vs_published": workload.batch_size,
        "sample_vs_published": workload.num_pictures,
    }
    of = {ratio.name.removesuffix(workload.suffix): ratio for ratio in ratios}
    return {
        f"{name.removesuffix('_vs_published')}{workload.suffix}": count / of[name].ours_s
        for name, count in counts.items()
    }


def end_to_end(workload: Workload, published: PublishedStep, ours: OurStep, clock: Clock) -> Ratio:
    """From images to pictures through every stage, once each side, at a share of the size: what is published encodes
    in every step, ours fills its caches first."""
    share, stages = workload.end_to_end_share, workload.stages()
    num_steps = max(1, round(STEPS * share / len(stages)))
    num_images = max(1, round(IMAGES * share))
    requests = workload.requests(FULL_GUIDANCE)
    requests = [requests[i % len(requests)] for i in range(max(1, round(PICTURES * share)))]
    images = np.resize(workload.images(), (num_images, 3, workload.size_px, workload.size_px))
    names = [rank_text(rank, name) for taxon in TAXA for rank, name in taxon.names]

    def train(step: PublishedStep | OurStep) -> None:
        for stage in stages:
            step.begin(stage)
            for _ in range(num_steps):
                step()

    def theirs() -> None:
        train(published)
        published_pictures(published, requests, workload.num_steps)

    def mine() -> None:
        ours.backbone.encode(images)
        ours.backbone.text(list(dict.fromkeys(names)))
        train(ours)
        our_pictures(ours, requests, workload.num_steps)

    peer_s, ours_s = timed(theirs, clock), timed(mine, clock)
    ratio = peer_s / ours_s
    return Ratio(f"end_to_end{workload.suffix}", ratio, ratio, ratio, peer_s, ours_s, 1)


def _composed(workload: Workload, ratios: list[Ratio], ours: OurStep, clock: Clock) -> Ratio:
    """Composed of what was measured, not run: cache, training, pictures.

    Stages between the first and the last are taken to cost their mean, which favours the published step: ours is at its
    fastest from the second stage on.
    """
    found = {ratio.name.removesuffix(workload.suffix): ratio for ratio in ratios}
    first, last = found["train_stage0_vs_published"], found["train_last_stage_vs_published"]
    pictures = found["sample_vs_published"]
    encode_s = timed(lambda: ours.backbone.encode(workload.images()), clock) / workload.batch_size
    share = PICTURES / workload.num_pictures
    peer_s = STEPS * (first.peer_s + last.peer_s) / 2 + share * pictures.peer_s
    ours_s = IMAGES * encode_s + STEPS * (first.ours_s + last.ours_s) / 2 + share * pictures.ours_s
    ratio = peer_s / ours_s
    return Ratio(f"end_to_end_composed{workload.suffix}", ratio, ratio, ratio, peer_s, ours_s, 0)
