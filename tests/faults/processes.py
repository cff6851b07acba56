"""Goals 6 and 7: two processes are one run; what befalls one of them, all decide alike."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from taxadiffusion import checkpoint
from taxadiffusion.trainer import events
from taxadiffusion.trainer.loop import Trainer
from taxadiffusion.trainer.sharding import shard_frozen
from taxadiffusion.trainer.world import World
from tests.faults.harness import Child, Plan, Recorder, folder, fork
from tests.faults.training import Job, Reference, undisturbed
from tests.tiny_run import OracleSource

_TIMEOUT_S = 20  # of collectives
_GONE_S = 30


@dataclass(frozen=True)
class Pair:
    """The same job on two gloo processes of this machine; `faulty` replaces it on process `victim`."""

    job: Job
    faulty: Job | None = None
    victim: int = 1

    def start(self) -> list[Child]:
        self.job.run_dir.parent.mkdir(parents=True, exist_ok=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        return [fork(lambda index=index: self._run(index, port), self.job.run_dir.parent) for index in range(2)]

    def _run(self, index: int, port: int) -> None:
        os.environ.update(
            RANK=str(index), LOCAL_RANK=str(index), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", ACCELERATE_USE_CPU="true",
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo",
        )  # fmt: skip
        chosen = self.faulty if self.faulty and index == self.victim else self.job
        replace(chosen, world=lambda: World.join(_TIMEOUT_S, torch.device("cpu"))).run()

    def codes(self, timeout_s: float = 120.0) -> list[int]:
        children = self.start()
        return [child.wait(timeout_s) for child in children]

    def finish(self) -> None:
        children = self.start()
        codes = [child.wait(180) for child in children]
        assert codes == [0, 0], f"exits {codes}: {children[0].output()[-300:]} {children[1].output()[-300:]}"


def settings(**changes: Any) -> dict[str, Any]:
    return {"checkpoint": {"every_steps": 2, "keep_last": 3}, **changes}


def job(run_dir: Path, steps: int = 5) -> Job:
    return Job(run_dir, steps=steps, settings=settings())


def weights(run_dir: Path) -> dict[str, Any]:
    found = checkpoint.latest(run_dir)
    assert found is not None
    return found.tensors("model")


def stop_at(step: int) -> Callable[[events.Event, Trainer], None]:
    """As the scheduler does it: a signal after a step; the run commits and leaves."""

    def hook(event: events.Event, _: Trainer) -> None:
        if isinstance(event, events.StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return hook


def as_one(plan: Plan) -> Recorder:
    """Goal 6."""
    recorder = Recorder(6, 4)
    steps = plan.few(17, 4)  # a stage, of three: 51 in all
    long = lambda run_dir: job(run_dir, steps)  # noqa: E731
    reference = undisturbed(long)
    with recorder.case("two processes = two accumulations", 0, "equal bits") as case, folder() as place:
        Pair(long(place / "run")).finish()
        reference.check(place / "run")
        case.hashes = {"state": reference.state}
    with recorder.case("2 → 1 → 2 processes", 0, "equal bits") as case, folder() as place:
        first = replace(long(place / "run"), hook=stop_at(steps))
        assert Pair(first, faulty=long(place / "run")).codes() == [75, 75]
        alone = replace(long(place / "run"), hook=stop_at(2 * steps))
        assert alone.start().wait() == 75
        Pair(long(place / "run")).finish()
        reference.check(place / "run")
        case.hashes = {"state": reference.state}
    with recorder.case("frozen base shared by two processes", 0, "equal bits"), folder() as place:
        whole = settings(training={"merge_lora": False})
        alone = undisturbed(lambda run_dir: Job(run_dir, steps=4, settings=whole))
        Pair(Job(place / "run", steps=4, settings=whole, prepare=shared)).finish()
        alone.check(place / "run")
    with recorder.case("one full batch", 0, "at most 1e-6 apart") as case, folder() as place:
        # The paper's rate, and no dropout within the encoder: its masks are drawn for a forward pass as a whole.
        gentle = {"optimiser": {"learning_rate": 1e-4, "ema_decay": None, "warmup_steps": 0, "schedule": "constant"}}
        far = []
        for size in (4, 8):
            chosen = settings(training={"micro_batch_size": size}, **gentle)
            Job(place / str(size), steps=steps, settings=chosen, prepare=without_dropout).finish()
        one, two = weights(place / "4"), weights(place / "8")
        far = [float((one[name] - two[name]).abs().max()) for name in one]
        case.observed = f"{max(far):.1e} apart"
        assert max(far) <= 1e-6, max(far)
    return recorder


def shared(trainer: Trainer) -> None:
    groups = trainer.denoiser.groups()
    trained = {parameter for parameters in groups.values() for parameter in parameters.values()}
    shard_frozen(trainer.denoiser.backbone.unet, trained, trainer.world)


def without_dropout(trainer: Trainer) -> None:
    import torch

    for module in trainer.denoiser.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0


@dataclass(frozen=True)
class Fault:
    """Something that happens to one process: how its job differs, on which process, and how all of them must end."""

    name: str
    change: Callable[[Job, int], Job]
    victim: Sequence[int]
    codes: Sequence[int | None]  # by process; None: any but 0


def _killed(chosen: Job, step: int) -> Job:
    def prepare(trainer: Trainer) -> None:
        original = trainer.gradients.losses

        def losses(stage: Any, batch: Any, **options: Any) -> Any:
            if batch.step == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(stage, batch, **options)

        trainer.gradients.losses = losses  # type: ignore[method-assign]

    return replace(chosen, prepare=prepare)


def _terminated(chosen: Job, step: int) -> Job:
    def prepare(trainer: Trainer) -> None:
        original = trainer.gradients.losses

        def losses(stage: Any, batch: Any, **options: Any) -> Any:
            if batch.step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(stage, batch, **options)

        trainer.gradients.losses = losses  # type: ignore[method-assign]

    return replace(chosen, prepare=prepare)


def _disk_full(chosen: Job, step: int) -> Job:
    def prepare(_: Trainer) -> None:
        original = checkpoint._rename

        def full(source: Path, target: Path) -> None:
            number = int(target.name.partition("-")[2]) if target.name.startswith("step-") else 0
            if number >= step:
                raise OSError(28, "No space left on device")
            original(source, target)

        checkpoint._rename = full

    return replace(chosen, prepare=prepare)


ROWS = (20, 21, 22, 23)
"""So many that each process meets one of them."""

FAULTS = (
    Fault("bad image", lambda j, _: replace(j, source=OracleSource(unreadable=ROWS)), (0, 1), (0, 0)),
    Fault(
        "too many bad images", lambda j, _: replace(j, source=OracleSource(unreadable=tuple(range(40)))), (0, 1), (3, 3)
    ),
    Fault("not a number", lambda j, _: replace(j, source=OracleSource(poisoned=ROWS)), (0, 1), (0, 0)),
    Fault("disk full", _disk_full, (0,), (4, 4)),
    Fault("SIGTERM", _terminated, (0, 1), (75, 75)),
    Fault("kill -9", _killed, (0, 1), (None, None)),
)


def witnessed(chosen: Job, path: Path) -> Job:
    """The job, with every decision of this process and its final parameters written down."""

    def hook(event: events.Event, trainer: Trainer) -> None:
        line = ""
        if isinstance(event, events.SamplesSkipped | events.StepRefused):
            line = f"{type(event).__name__} {event.step} {event.rows}"
        elif isinstance(event, events.StepDone):
            line = f"StepDone {event.step} {event.loss!r} {event.grad_norm!r}"
        elif isinstance(event, events.Finished):
            digest = hashlib.sha256()
            for parameters in trainer.denoiser.groups().values():
                for parameter in parameters.values():
                    digest.update(parameter.detach().numpy().tobytes())
            line = f"parameters {digest.hexdigest()}"
        if line:
            with path.open("a") as file:
                file.write(line + "\n")

    return replace(chosen, hook=hook)


def one_sided(recorder: Recorder, fault: Fault, seed: int, reference: Reference) -> None:
    rng = random.Random(seed)
    victim = fault.victim[seed % len(fault.victim)]
    step = rng.randrange(3, 13)
    expected = "same decision on all, no hang, all gone in 30 s, resumes to equal bits"
    with recorder.case(f"{fault.name} on process {victim}", seed, expected) as case, folder() as place:
        chosen = job(place / "run")
        if fault.name in ("bad image", "not a number"):
            chosen = replace(chosen, settings=settings(training={"max_bad_fraction": 0.1, "max_refused_steps": 100}))
        logs = [place / f"process-{index}.log" for index in range(2)]
        pair = Pair(witnessed(chosen, logs[1 - victim]), witnessed(fault.change(chosen, step), logs[victim]), victim)
        children = pair.start()
        started = time.monotonic()
        codes = [child.wait(60) for child in children]
        seconds = time.monotonic() - started
        case.observed = f"exits {codes} after {seconds:.1f} s"
        outputs = " | ".join(child.output()[-200:] for child in children)
        for code, wanted in zip(codes, fault.codes, strict=True):
            assert code == wanted if wanted is not None else code != 0, f"exits {codes}: {outputs}"
        assert seconds <= _GONE_S
        if None not in fault.codes:
            seen = [log.read_text() for log in logs]
            assert seen[0] == seen[1], "the processes decided differently"
        if fault.codes[0] == 0:
            kind = "SamplesSkipped" if fault.name == "bad image" else "StepRefused"
            assert kind in seen[0], "the fault was not reached"
            return
        if fault.codes[0] == 3:
            return
        Pair(chosen).finish()
        reference.check(place / "run")


def faults_of_one(plan: Plan) -> Recorder:
    """Goal 7."""
    each = plan.few(5, 1)
    chosen = [fault for fault in FAULTS if not plan.subset or fault.name in ("not a number", "SIGTERM", "kill -9")]
    recorder = Recorder(7, each * len(chosen))
    reference = undisturbed(job)
    for fault in chosen:
        for seed in range(each):
            one_sided(recorder, fault, plan.seed + seed, reference)
    return recorder
