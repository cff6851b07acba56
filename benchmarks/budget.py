"""The benchmark of a rented GPU: as many rows as a budget of seconds allows, each written when it is there."""

from __future__ import annotations

import json
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from benchmarks.compare import FULL_GUIDANCE, NotTheSameError, begin_alike, check_lora, check_pictures
from benchmarks.drawn import UNET_FORWARD_FLOP, larger_batch, sd15, tiny
from benchmarks.latents import measure as measure_latents
from benchmarks.ours import OurStep, build_caches, our_pictures
from benchmarks.peers import DiffusersLoRAStep, DiffusersPictures, PublishedStep, published_pictures
from benchmarks.timing import interleaved, timed
from benchmarks.workload import RANKS, Workload, faster_precision, shipped, without_dropout
from taxadiffusion.base.transfer import use_fast_arithmetic
from taxadiffusion.stages import Stage
from taxadiffusion.versions import OWN, versions

_PACKAGES = ("torch", "diffusers", "transformers", "peft", "numpy")
_RESERVE_S = 5.0  # for writing the last line and leaving

Work = Callable[[], object]


class OutOfTimeError(BaseException):
    """The budget is spent. No `Exception`: libraries on the way (torch.compile) would take it for a fault of theirs."""


def software() -> dict[str, str]:
    """Versions of this package and of what it stands on."""
    return {"python": platform.python_version(), **versions(OWN, *_PACKAGES)}


@dataclass
class Report:
    """Everything found so far, in a file that is whole at any time."""

    path: Path | None
    device: str
    budget_s: float
    started: float = field(default_factory=time.monotonic)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    ended: str = "no: cut short"

    @property
    def left_s(self) -> float:
        return self.budget_s - _RESERVE_S - (time.monotonic() - self.started)

    def add(self, name: str, row: dict[str, Any]) -> None:
        self.rows[name] = row | {"at_s": round(time.monotonic() - self.started, 1)}
        print(f"{name}: " + ", ".join(f"{key} {_short(value)}" for key, value in row.items()), flush=True)
        self.write()

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out[name] = reason
        print(f"{name}: left out, {reason}", flush=True)
        self.write()

    def write(self) -> None:
        if self.path is None:
            return
        document = {
            "device": self.device,
            "versions": software(),
            "budget_s": self.budget_s,
            "spent_s": round(time.monotonic() - self.started, 1),
            "ended_by_itself": self.ended,
            "rows": self.rows,
            "left_out": self.left_out,
        }
        aside = self.path.with_name(self.path.name + ".tmp")
        aside.write_text(json.dumps(document, indent=2) + "\n")
        aside.replace(self.path)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def within(budget_s: float, device: str, path: Path | None, *, small: bool = False) -> int:
    """Measure what the budget allows; 0, also where rows were left out, which the report names.

    small: tiny shapes, to try the benchmark itself.
    """
    torch.backends.cudnn.benchmark = False  # its search takes longer than it saves here
    use_fast_arithmetic(torch.device(device))
    name = torch.cuda.get_device_name() if device != "cpu" else platform.processor() or platform.machine()
    report = Report(path, name, budget_s)
    with tempfile.TemporaryDirectory() as scratch, _alarm(budget_s - _RESERVE_S):
        try:
            _measure(report, Path(scratch), device, small)
            report.ended = "yes"
        except OutOfTimeError:
            report.ended = "yes: the budget was spent in the middle of a row"
    report.write()
    return 0


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """`OutOfTimeError` within, when the time is over: as soon as Python has its turn."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _measure(report: Report, scratch: Path, device: str, small: bool) -> None:
    precision = faster_precision(device)
    workload = (tiny if small else sd15)(scratch / "base", device, precision)
    caches = scratch / "caches"
    caches.mkdir()
    seconds = timed(lambda: build_caches(workload, caches, None), time.perf_counter)
    report.add("drawn", {"seconds": seconds, "precision": str(precision), "size_px": workload.size_px})

    def row(name: str, least_s: float, measure: Work) -> None:
        _row(report, name, 0.0 if small else least_s, measure)

    first, last = workload.stages()[0], workload.stages()[-1]
    row("memory_vs_published", 10, lambda: _memory(report, workload, caches))
    published, ours = PublishedStep(workload), OurStep(workload, caches)
    row("train_stage0_vs_published", 10, lambda: _training(report, "train_stage0_vs_published", published, ours, first))
    name = "train_last_stage_vs_published"
    row(name, 10, lambda: _training(report, name, published, ours, last))
    row("train_stage0_vs_diffusers_lora", 10, lambda: _lora(report, workload, ours))
    row("utilisation", 5, lambda: _utilisation(report, "utilisation", ours, small))
    row("sample_vs_diffusers", 20, lambda: _against_pipeline(report, workload, published, ours))
    row("sample_vs_published", 40, lambda: _against_inference(report, workload, published, ours))
    row("latent_cache", 30, lambda: _latents(report, scratch, workload, small))
    row("small_large_batch", 30, lambda: _small(report, scratch, device, small))
    row("utilisation_compiled", 120, lambda: _compiled(report, workload, ours, small))


def _training(report: Report, name: str, published: PublishedStep, ours: OurStep, stage: Stage) -> None:
    begin_alike(published, ours, stage)
    _ratio(report, name, as_torch_comes(published), ours, ours.workload.batch_size)


def _lora(report: Report, workload: Workload, ours: OurStep) -> None:
    ours.begin(workload.stages()[0])
    lora = DiffusersLoRAStep(workload, ours.backbone)
    check_lora(workload, lora, ours)
    _ratio(report, "train_stage0_vs_diffusers_lora", lora, ours, workload.batch_size)


def _compiled(report: Report, workload: Workload, ours: OurStep, small: bool) -> None:
    ours.backbone.compile()
    ours.begin(workload.stages()[0])
    built_s = timed(ours, time.perf_counter)
    _utilisation(report, "utilisation_compiled", ours, small, built_s=built_s)


def _row(report: Report, name: str, least_s: float, measure: Work) -> None:
    """A row, if so many seconds are left for it; sides that differ, or do not fit into memory, leave it out."""
    if report.left_s < least_s:
        report.leave_out(name, f"{max(0.0, report.left_s):.0f} s are left, it takes {least_s:.0f} s or more")
        return
    try:
        measure()
    except NotTheSameError as error:
        report.leave_out(name, f"not the same: {error}")
    except torch.OutOfMemoryError as error:
        report.leave_out(name, f"out of memory: {str(error).splitlines()[0]}")
        torch.cuda.empty_cache()


def as_torch_comes(work: Work) -> Work:
    """A peer in torch's own settings: float32 products in float32, convolutions in TF32."""

    def run() -> object:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            return work()
        finally:
            torch.set_float32_matmul_precision(before)

    return run


def _ratio(report: Report, name: str, peer: Work, ours: Work, num_images: int, most_pairs: int = 8) -> None:
    """Peer and ours in turn: as many pairs as take a tenth of the budget."""
    peer()
    ours()
    one_s = timed(peer, time.perf_counter) + timed(ours, time.perf_counter)
    pairs = max(1, min(most_pairs, int(min(report.budget_s / 10, report.left_s / 2) / max(one_s, 1e-6))))
    found = interleaved(name, peer, ours, pairs, time.perf_counter)
    report.add(name, asdict(found) | {"ours_images_per_s": num_images / found.ours_s})


def _memory(report: Report, workload: Workload, caches: Path) -> None:
    """Peak memory of two steps of the last stage, one side after the other; a CPU has `benchmarks.memory` for it."""
    if workload.device == "cpu":
        report.leave_out("memory_vs_published", "on a CPU: python -m benchmarks measures it in processes of their own")
        return
    peak = {}
    for side, make in (("published", lambda: PublishedStep(workload)), ("ours", lambda: OurStep(workload, caches))):
        torch.cuda.empty_cache()
        step = make()
        step.begin(workload.stages()[-1])
        if side == "ours":
            step.backbone.release()
        torch.cuda.reset_peak_memory_stats()
        step()
        step()
        peak[side] = torch.cuda.max_memory_allocated()
        del step
    report.add("memory_vs_published", {"ratio": peak["ours"] / peak["published"], **peak})


def _utilisation(report: Report, name: str, ours: OurStep, small: bool, **more: float) -> None:
    """Model FLOP a second of a step: a forward pass, and as much again for the gradients of its activations (those
    of frozen weights are left out), against one large product in the base's precision."""
    ours.begin(ours.workload.stages()[0])
    ours()
    step_s = min(timed(ours, time.perf_counter) for _ in range(3))
    side = 512 if small else 8192
    left = torch.randn(side, side, device=ours.backbone.device).to(ours.backbone.dtype)
    plain_s = min(timed(lambda: left @ left, time.perf_counter) for _ in range(5))
    size = ours.workload.batch_size * (ours.workload.size_px / 512) ** 2
    reached, plain = 2 * UNET_FORWARD_FLOP * size / step_s, 2 * side**3 / plain_s
    row = {"step_s": step_s, "images_per_s": ours.workload.batch_size / step_s, "plain_flop_per_s": plain, **more}
    if not small:  # the published count is that of the full size alone
        row |= {"model_flop_per_s": reached, "share_of_plain": reached / plain}
    report.add(name, row)


def _against_pipeline(report: Report, workload: Workload, published: PublishedStep, ours: OurStep) -> None:
    begin_alike(published, ours, workload.stages()[-1])
    requests = workload.requests(FULL_GUIDANCE)
    ours.backbone.unmerge_lora()
    with torch.no_grad(), without_dropout(ours.denoiser):
        targets = ours.denoiser.conditioner([request.lineage for request in requests])
        bases = ours.denoiser.conditioner([request.lineage.truncated(RANKS[0]) for request in requests])
    pipeline = DiffusersPictures(ours.backbone)

    def theirs() -> list[Any]:
        batch = workload.sampling_batch
        return pipeline(requests, targets, bases, workload.size_px, workload.num_steps, batch_size=batch)

    def mine() -> list[Any]:
        return [sample.image for sample in our_pictures(ours, requests, workload.num_steps)]

    check_pictures("StableDiffusionPipeline", theirs(), mine(), workload.precision)
    _ratio(report, "sample_vs_diffusers", theirs, mine, len(requests), most_pairs=3)


def _against_inference(report: Report, workload: Workload, published: PublishedStep, ours: OurStep) -> None:
    """Two pictures of the published inference, for it takes as long for each; all of ours."""
    begin_alike(published, ours, workload.stages()[-1])
    requests = workload.requests(FULL_GUIDANCE)
    pictures: dict[str, list[Any]] = {}

    def theirs() -> None:
        pictures["theirs"] = published_pictures(published, requests[:2], workload.num_steps)

    def mine() -> None:
        pictures["ours"] = [sample.image for sample in our_pictures(ours, requests, workload.num_steps)]

    published_run = as_torch_comes(theirs)
    published_run()
    mine()
    check_pictures("the published inference", pictures["theirs"], pictures["ours"][:2], workload.precision)
    peer_s = timed(published_run, time.perf_counter) / 2
    ours_s = timed(mine, time.perf_counter) / len(requests)
    row = {"ratio": peer_s / ours_s, "peer_s_a_picture": peer_s, "ours_s_a_picture": ours_s, "num_pairs": 1}
    report.add("sample_vs_published", row)


def _latents(report: Report, scratch: Path, workload: Workload, small: bool) -> None:
    """The latent cache against the VAE alone."""
    photos = scratch / "photos"
    photos.mkdir()
    found = measure_latents(
        workload.plain(), photos, size_px=workload.size_px, num_photos=32 if small else 512, num_rounds=1
    )
    report.add("latent_cache", found)


def _small(report: Report, scratch: Path, device: str, small: bool) -> None:
    """The shipped base at a batch that a GPU needs to be busy."""
    workload = larger_batch(shipped(device=device), 8 if small else 2048, "_small")
    caches = scratch / "small"
    caches.mkdir()
    build_caches(workload, caches, None)
    ours = OurStep(workload, caches)
    ours.begin(workload.stages()[0])
    ours()
    seconds = min(timed(ours, time.perf_counter) for _ in range(3))
    row = {"batch_size": workload.batch_size, "step_s": seconds, "images_per_s": workload.batch_size / seconds}
    report.add("small_large_batch", row)


if __name__ == "__main__":
    sys.exit("run: python -m benchmarks --budget-s SECONDS [--device cuda] [--json FILE]")
