"""What a run reports while it goes: frozen values, in order of happening; whoever watches decides what they mean."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from taxadiffusion.names import Rank


@dataclass(frozen=True, slots=True)
class Resumed:
    """The run goes on from a commit; `passed_over` says which newer ones did not verify."""

    step: int
    path: Path
    passed_over: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StageStarted:
    step: int
    stage: str
    num_steps: int
    num_trained: int  # parameters
    num_samples_seen: int


@dataclass(frozen=True, slots=True)
class StepDone:
    """One optimizer step. `loss` is the mean over the global batch before weighting."""

    step: int  # steps done, over all stages
    stage: str
    stage_step: int  # steps done within the stage
    loss: float
    grad_norm: float
    learning_rate: float
    num_samples_seen: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StepRefused:
    """A loss or gradient was not finite: no parameter changed. `rows` are the samples at fault, or the whole batch."""

    step: int
    stage: str
    rows: tuple[int, ...]
    reason: str
    in_a_row: int


@dataclass(frozen=True, slots=True)
class SamplesSkipped:
    """Images that could not be read or whose latents are not finite: they weigh nothing in this step."""

    step: int
    rows: tuple[int, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Validated:
    step: int
    stage: str
    loss: float
    num_samples: int


@dataclass(frozen=True, slots=True)
class NamesCompared:
    """The stage has ended: how far apart each trained encoder puts names, as a share of its output. 0: all are one."""

    step: int
    stage: str
    spread: Mapping[Rank, float]


@dataclass(frozen=True, slots=True)
class PreviewDue:
    """The moment to draw preview pictures, on the first process only."""

    step: int
    stage: str
    rank: Rank  # where conditions are cut


@dataclass(frozen=True, slots=True)
class StageDone:
    step: int
    stage: str


@dataclass(frozen=True, slots=True)
class CheckpointCommitted:
    step: int
    path: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class Spent:
    """At a commit: the rate of the steps since the last one, the time that is left at their pace, and the cost of the
    whole run so far, in hours of cores (on CPUs) and of GPUs."""

    step: int
    images_per_second: float  # of all processes
    left_s: float
    core_hours: float
    gpu_hours: float


@dataclass(frozen=True, slots=True)
class TrackerLost:
    """A tracker failed and is told nothing more; the run goes on."""

    step: int
    tracker: str
    reason: str


@dataclass(frozen=True, slots=True)
class Finished:
    """All stages are done. `already` when the run had ended before this command."""

    step: int
    already: bool


Event = (
    Resumed
    | StageStarted
    | StepDone
    | StepRefused
    | SamplesSkipped
    | Validated
    | NamesCompared
    | PreviewDue
    | StageDone
    | CheckpointCommitted
    | Spent
    | TrackerLost
    | Finished
)
EventStream = Iterator[Event]
