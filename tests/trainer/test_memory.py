"""Laws of memory: what a step is said to need is what it takes, and a step that finds none says what to set."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.transfer import memory_faults
from taxadiffusion.condition import TaxonomySettings
from taxadiffusion.condition.methods import build_conditioner, method_named
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request, Sampler
from taxadiffusion.stages import plan
from taxadiffusion.trainer.memory import StepForm, StepMemory, step_memory
from tests.tiny_base import WIDTH, write_tiny_base
from tests.tiny_run import NUM_TAXA, RANKS, MemoStates, lineage_of, tiny_denoiser, tiny_trainer

TAXA = [lineage_of(number) for number in range(NUM_TAXA)]
STAGES = plan(method_named("progressive"), RANKS, 1)


@dataclass(frozen=True)
class Case:
    """A U-Net and a batch whose memory is measured."""

    channels: tuple[int, ...]
    side: int
    num_samples: int
    checkpointed: bool


CASES = (
    Case((16, 32), 8, 256, checkpointed=False),
    Case((64, 128), 16, 32, checkpointed=True),
)
TOLERANCE = 0.15
"""Relative, of what a step was measured to take (docs/performance.md has the measured errors)."""


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def denoiser_of(folder: Path, channels: tuple[int, ...]) -> Denoiser:
    write_tiny_base(folder, "epsilon")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        UNet2DConditionModel(
            sample_size=16, block_out_channels=channels, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), layers_per_block=1, cross_attention_dim=WIDTH,
            attention_head_dim=4, norm_num_groups=8,
        ).save_pretrained(folder / "unet")  # fmt: skip
    backbone = Backbone.load(str(folder))
    backbone.add_lora(LoRASettings())
    settings = TaxonomySettings(num_layers=1, num_heads=2, feed_forward=16)
    return Denoiser(backbone, build_conditioner(settings, RANKS, MemoStates(), TAXA))


def measured_bytes(warm_up: Callable[[], object], work: Callable[[], object]) -> int:
    """What a child process's resident memory grows by at its highest while it works. No backward pass before the fork:
    autograd's threads do not survive it."""
    read_end, write_end = os.pipe()
    if not (pid := os.fork()):
        try:
            ctypes.CDLL(None).mallopt(-3, 1 << 16)  # M_MMAP_THRESHOLD: what is freed leaves the process at once
            warm_up()  # brings libraries' code into memory
            before = _status("VmRSS:")
            work()
            os.write(write_end, json.dumps(_status("VmHWM:") - before).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:
        found: int = json.loads(stream.read())
    os.waitpid(pid, 0)
    return found


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


def step_of(case: Case, folder: Path) -> tuple[Denoiser, Callable[[int], object]]:
    """A denoiser, and a forward and backward pass of its first stage for so many samples."""
    denoiser = denoiser_of(folder, case.channels)
    denoiser.prepare_stage(STAGES[0])
    if case.checkpointed:
        denoiser.backbone.checkpoint_gradients()

    def step(num_samples: int) -> None:
        noise = torch.randn(num_samples, 4, case.side, case.side)
        lineages = [TAXA[index % NUM_TAXA].truncated("order") for index in range(num_samples)]
        batch = Batch(noise, lineages, noise, torch.zeros(num_samples, dtype=torch.long))
        denoiser(batch).mean().backward()  # type: ignore[no-untyped-call]

    return denoiser, step


def taken_bytes(case: Case, folder: Path) -> int:
    _, step = step_of(case, folder)
    return measured_bytes(lambda: step(1), lambda: step(case.num_samples))


def test_a_step_takes_what_it_is_said_to_need(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.trainer.test_memory", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
    taken = json.loads(done.stdout.splitlines()[-1])
    for index, case in enumerate(CASES):
        denoiser, _ = step_of(case, tmp_path / f"said-{index}")
        shape = (4, case.side, case.side)
        memory = step_memory(denoiser, STAGES[0], TAXA, shape, StepForm("float32", case.checkpointed))
        said = memory.of(case.num_samples) - memory.resident
        print(f"{case}: said {said / 1e6:.1f} MB, taken {taken[index] / 1e6:.1f} MB")
        assert said == pytest.approx(taken[index], rel=TOLERANCE)


def test_asking_changes_nothing_and_each_remedy_helps() -> None:
    denoiser = tiny_denoiser()
    before = {name: (id(p), p.detach().clone()) for name, p in denoiser.named_parameters()}

    def needed(precision: Any, checkpointed: bool, side: int = 8) -> StepMemory:
        return step_memory(denoiser, STAGES[0], TAXA, (4, side, side), StepForm(precision, checkpointed))

    plain = needed("float32", False)
    rounded = needed("bfloat16", False)
    assert rounded.per_sample < plain.per_sample
    assert rounded.resident < plain.resident
    assert needed("float32", True).per_sample < plain.per_sample
    assert 3 * plain.per_sample < needed("float32", False, side=16).per_sample < 4 * plain.per_sample
    after = dict(denoiser.named_parameters())
    assert all(id(after[name]) == identity for name, (identity, _) in before.items())
    assert all(torch.equal(after[name], value) for name, (_, value) in before.items())
    assert not denoiser.backbone.unet.is_gradient_checkpointing
    batch = Batch(torch.zeros(1, 4, 8, 8), TAXA[:1], torch.zeros(1, 4, 8, 8), torch.zeros(1, dtype=torch.long))
    assert torch.isfinite(denoiser(batch)).all()


def test_a_card_takes_as_many_samples_as_are_left_room_for() -> None:
    memory = StepMemory("bfloat16", False, (4, 64, 64), resident=2 * 10**9, fixed=10**9, per_sample=10**9)
    assert [memory.fits(card) for card in (2, 8, 12)] == [0, 4, 8]
    assert memory.of(4) <= 8e9 - 1e9 < memory.of(5)


def test_memory_that_is_not_there_is_one_error_with_its_remedy() -> None:
    with (
        pytest.raises(SettingsError, match="out of memory with 7 samples: set less"),
        memory_faults("7 samples", "set less"),
    ):
        torch.empty(1 << 58, dtype=torch.uint8)
    with pytest.raises(SettingsError, match="out of memory"), memory_faults("x", "y"):
        raise torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(RuntimeError, match="shapes"), memory_faults("x", "y"):
        raise RuntimeError("shapes do not match")


def test_training_and_sampling_name_the_batch_that_did_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    trainer = tiny_trainer(tmp_path)
    monkeypatch.setattr(trainer.gradients, "losses", full)
    with pytest.raises(SettingsError, match=r"4 samples at once in stage order: set training\.micro_batch_size lower"):
        list(trainer.run())
    denoiser = trainer.denoiser
    monkeypatch.setattr(denoiser.backbone, "forward", full)
    with pytest.raises(SettingsError, match=r"2 pictures of 16 px at once: make the batch smaller"):
        list(Sampler(denoiser)([Request(Lineage(), 0), Request(TAXA[0], 1)], num_steps=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    print(json.dumps([taken_bytes(case, folder / f"taken-{index}") for index, case in enumerate(CASES)]))
