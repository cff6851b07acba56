"""Laws of a step that is read late: whatever looks at the run finds what it would find had each been waited for."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from taxadiffusion.errors import NonFiniteError, PreemptedError
from taxadiffusion.trainer import events
from taxadiffusion.trainer.ahead import one_ahead
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World
from tests import fake_cuda
from tests.tiny_run import OracleSource, loop_settings, state_hash, tiny_denoiser, tiny_trainer

PATIENT = loop_settings(
    training={"max_refused_steps": 100, "max_bad_fraction": 0.5},
    checkpoint={"every_steps": 7},
    validation={"every_steps": 0},
)


class LateWorld(World):
    """Reads late on a CPU, as one GPU does."""

    reads_late = True


def seen(run: Iterator[events.Event]) -> list[events.Event]:
    """The events but for what differs from run to run: durations and paths."""
    blank: dict[type, dict[str, Any]] = {
        events.StepDone: {"seconds": 0.0},
        events.CheckpointCommitted: {"seconds": 0.0, "path": Path()},
    }
    return [replace(event, **blank[type(event)]) if type(event) in blank else event for event in run]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("source", [OracleSource(), OracleSource(poisoned=(5, 9)), OracleSource(unreadable=(3,))])
def test_read_late_or_at_once_the_run_is_the_same(tmp_path: Path, source: OracleSource) -> None:
    """Bit for bit, with every event in its place, also where steps are refused and images cannot be read."""
    at_once = seen(tiny_trainer(tmp_path / "a", source=source, settings=PATIENT).run())
    late = seen(tiny_trainer(tmp_path / "b", source=source, settings=PATIENT, world=LateWorld()).run())
    assert late == at_once
    assert state_hash(tmp_path / "b") == state_hash(tmp_path / "a")
    assert bool(source.poisoned) == any(isinstance(event, events.StepRefused) for event in late)


def test_a_step_is_read_after_the_next_one_was_given(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, settings=PATIENT, world=LateWorld())
    ahead = [trainer.progress.step - event.step for event in trainer.run() if isinstance(event, events.StepDone)]
    assert ahead == [1, 1, 1, 1, 0, 1, 0, 1, 1, 0, 1, 1, 1, 0, 0]  # none at stages' ends and commits (7, 14)


@pytest.mark.parametrize("when", ["commit", "validation"])
def test_what_looks_at_the_weights_waits_for_every_step(tmp_path: Path, when: str) -> None:
    often = loop_settings(
        checkpoint={"every_steps": 1 if when == "commit" else 100},
        validation={"every_steps": 2 if when == "validation" else 0},
    )
    at_once = seen(tiny_trainer(tmp_path / "a", settings=often).run())
    assert seen(tiny_trainer(tmp_path / "b", settings=often, world=LateWorld()).run()) == at_once


@pytest.mark.parametrize("stop_after", [1, 4, 8])
def test_a_run_that_reads_late_is_resumed_exactly(tmp_path: Path, stop_after: int) -> None:
    source = OracleSource(poisoned=(5,))
    list(tiny_trainer(tmp_path / "a", source=source, settings=PATIENT).run())
    stop = StopSignal()
    committed = []

    def until_stopped() -> None:
        for event in tiny_trainer(tmp_path / "b", source=source, settings=PATIENT, world=LateWorld(), stop=stop).run():
            if isinstance(event, events.StepDone | events.StepRefused) and event.step == stop_after:
                stop.number = signal.SIGTERM
            if isinstance(event, events.CheckpointCommitted):
                committed.append(event.step)

    with pytest.raises(PreemptedError, match=r"after committing step"):
        until_stopped()
    assert committed[-1] - stop_after in (1, 2)  # the step given meanwhile, or the one that saw the signal
    list(tiny_trainer(tmp_path / "b", source=source, settings=PATIENT, world=LateWorld()).run())
    assert state_hash(tmp_path / "b") == state_hash(tmp_path / "a")


def test_refused_steps_in_a_row_end_a_run_that_reads_late(tmp_path: Path) -> None:
    source = OracleSource(poisoned=tuple(range(40)))
    trainer = tiny_trainer(tmp_path, source=source, world=LateWorld())
    before = {name: p.detach().clone() for g in trainer.denoiser.groups().values() for name, p in g.items()}
    with pytest.raises(NonFiniteError, match=r"step 5: .* not finite 5 times in a row"):
        list(trainer.run())
    after = {name: p for g in trainer.denoiser.groups().values() for name, p in g.items()}
    assert all(torch.equal(after[name], value) for name, value in before.items())


# The double buffer


def test_the_next_item_is_made_while_one_is_used_and_none_is_lost() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    used = []
    for item in one_ahead(items(), lambda item: lambda: 10 * item):
        used.append(item)
    assert used == [0, 10, 20, 30, 40]
    assert made == [0, 1, 2, 3, 4]


def test_a_fault_in_the_making_reaches_the_user() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        list(one_ahead(items(), lambda item: lambda: item))


# Waiting for the device


def test_a_step_on_a_gpu_waits_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a simulated device, where reading a number is an error: neither passes nor update read any, and after the
    first step every copy is only asked for."""
    mode = fake_cuda.simulate(monkeypatch)
    monkeypatch.setattr("taxadiffusion.trainer.loop.ahead", lambda batches, _: batches)
    denoiser = tiny_denoiser()
    with mode:
        fake_cuda.put_on_it(denoiser)
    trainer = tiny_trainer(tmp_path, denoiser=denoiser, world=World(device=fake_cuda.CUDA))
    with mode:
        trained = trainer._prepare(trainer.plan[0])
        optimiser = StageOptimiser(trained, trainer.settings.optimiser, 5)

        def backward(_: torch.Tensor) -> None:
            for parameter in trained.values():
                parameter.grad = torch.zeros_like(parameter)

        monkeypatch.setattr(torch.Tensor, "backward", backward)
        for step in range(2):
            copies = fake_cuda.Copies()
            batches = iter([trainer.dataset[2 * step], trainer.dataset[2 * step + 1]])
            with copies:
                trainer._give(0, step, optimiser, batches)
    assert copies.waiting == 0
    assert copies.asked_for >= 8  # latents, noise, noise levels, readable ones, of two micro-batches


def test_a_run_on_a_gpu_reads_late_and_two_processes_at_once() -> None:
    assert World(device=fake_cuda.CUDA).reads_late
    assert not World(device=fake_cuda.CUDA, num_processes=2).reads_late
    assert not World().reads_late
