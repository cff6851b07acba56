"""The loop: every stage in turn, a commit now and then, and an event for everything that happens."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from taxadiffusion.base.transfer import memory_faults
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import DataError, NonFiniteError
from taxadiffusion.stages import Stage
from taxadiffusion.trainer import events
from taxadiffusion.trainer.ahead import ahead
from taxadiffusion.trainer.estimate import FEWER
from taxadiffusion.trainer.gradients import Gradients, Issued, Outcome, TrainingData
from taxadiffusion.trainer.history import RunFolder, RunHistory, RunProgress
from taxadiffusion.trainer.loader import MicroBatch, MicroBatches, Share, loader_faults, micro_batches
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.settings import LoopSettings
from taxadiffusion.trainer.signals import StopSignal, stop_error
from taxadiffusion.trainer.validation import Validation
from taxadiffusion.trainer.world import World

_NUM_COMPARED = 1000

Events = events.EventStream

_FEWER = f"{FEWER} (a run that has commits asks for --allow-change of each key); train --dry-run says what fits"


@dataclass(frozen=True, slots=True)
class _Step:
    """A step that the device was given, and what it will be reported as."""

    issued: Issued
    stage: Stage
    step: int  # steps given so far, this one included
    stage_step: int
    learning_rate: float
    started: float


class Trainer:
    """Trains `denoiser` through `plan`, resuming from the newest good commit in `folder`.

    The caller holds the run's lock. Iterating `run` raises `CheckpointError`, `DataError`, `NonFiniteError`,
    `SettingsError`, `PreemptedError` or `InterruptedByUserError`; after the last two, and after
    a kill, the same command goes on exactly.

    On one GPU a step is reported while the next one is computed (`World.reads_late`): a commit, a validation, a
    preview, the end of a stage and a signal wait for every step before, and find what they would find otherwise.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        plan: Sequence[Stage],
        data: TrainingData,
        settings: LoopSettings,
        folder: RunFolder,
        *,
        world: World | None = None,
        stop: StopSignal | None = None,
    ) -> None:
        self.denoiser = denoiser
        self.plan = tuple(plan)
        self.data = data
        self.settings = settings
        self.world = world or World()
        self.stop = stop or StopSignal()
        self.history = RunHistory(folder, self.plan, settings, self.world)
        training = settings.training
        self.share = Share.of(
            training.batch_size, training.micro_batch_size, self.world.process_index, self.world.num_processes
        )
        order = data.order(settings.seed, training.balance)
        self.dataset = MicroBatches(data.source, order, self.share, timesteps=training.timesteps)
        self.gradients = Gradients(denoiser, data, settings, self.share, self.world, self.stop)
        self.validation = Validation(self.gradients, settings)
        self.progress = RunProgress()
        self._settled_at = 0.0

    def run(self) -> Events:
        """Train to the end, or report at once that the run had ended."""
        groups = self.denoiser.groups()
        trained = {name: p for stage in self.plan for group in stage.trains for name, p in groups[group].items()}
        resumption = self.history.resume(trained)
        if resumption is not None:
            self.progress = resumption.progress
            self.denoiser.conditioner.loaded()
            yield resumption.event
        already = self.progress.stage == len(self.plan)
        if not already:
            accumulation = self.share.accumulation
            start = self.progress.step * accumulation
            stop = sum(stage.num_steps for stage in self.plan) * accumulation
            made = micro_batches(self.dataset, start, stop, self.settings.num_workers, self.data.in_worker)
            batches = ahead(made, self.world.device)
            with loader_faults():
                for index in range(self.progress.stage, len(self.plan)):
                    yield from self._run_stage(index, batches, trained)
        self.history.export(again=not already)
        yield events.Finished(self.progress.step, already)

    def _run_stage(self, index: int, batches: Iterator[MicroBatch], trained: dict[str, nn.Parameter]) -> Events:
        stage = self.plan[index]
        first_step = sum(earlier.num_steps for earlier in self.plan[:index])
        own = self._prepare(stage)
        optimiser = StageOptimiser(own, self.settings.optimiser, stage.num_steps)
        if self.progress.step > first_step:
            self.history.restore_optimiser(optimiser)
        num_trained = sum(parameter.numel() for parameter in own.values())
        seen = self.progress.step * self.share.batch_size
        yield events.StageStarted(self.progress.step, stage.name, stage.num_steps, num_trained, seen)
        late: _Step | None = None
        while self.progress.step < first_step + stage.num_steps:
            stage_step = self.progress.step - first_step
            last = stage_step + 1 == stage.num_steps
            given = self._give(index, stage_step, optimiser, batches)
            if late is not None:
                yield from self._settled(late)
                late = None
            commits = last or self.progress.step % self.settings.checkpoint.every_steps == 0
            if self.world.reads_late and not (given.issued.stop or commits or any(self._watches(last))):
                late = given
                continue
            outcome = yield from self._settled(given)
            if last:
                optimiser.end_on_average()
                self.progress.stage = index + 1
            if commits or outcome.stop:
                yield self.history.commit(self.progress, trained, None if last else optimiser)
            if outcome.stop:
                raise stop_error(outcome.stop, f"stopped by a signal after committing step {self.progress.step}")
            yield from self._watch(index, last, optimiser)
        yield from self._compare_names(stage)
        yield events.StageDone(self.progress.step, stage.name)

    def _give(self, index: int, stage_step: int, optimiser: StageOptimiser, batches: Iterator[MicroBatch]) -> _Step:
        """Give the device a whole step. It changes nothing where loss or gradient turn out not to be finite."""
        started = time.perf_counter()
        with memory_faults(f"{self.share.size} samples at once in stage {self.plan[index].name}", _FEWER):
            issued = self.gradients.step(self.plan[index], self._condition_dropout(index), optimiser, batches)
            rate = optimiser.update(stage_step, issued.not_finite)
        optimiser.clear_gradients()
        self.progress.step += 1
        return _Step(issued, self.plan[index], self.progress.step, stage_step + 1, rate, started)

    def _settled(self, given: _Step) -> Generator[events.Event, None, Outcome]:
        """Wait for what a step came to, and report it; counters follow."""
        outcome = self.gradients.outcome(given.issued)
        if outcome.bad_rows:
            yield from self._skipped(given.step, outcome.bad_rows)
        now = time.perf_counter()
        seconds, self._settled_at = now - max(given.started, self._settled_at), now
        if outcome.finite:
            self.progress.refused_in_a_row = 0
            yield events.StepDone(
                step=given.step,
                stage=given.stage.name,
                stage_step=given.stage_step,
                loss=outcome.loss,
                grad_norm=outcome.grad_norm,
                learning_rate=given.learning_rate,
                num_samples_seen=given.step * self.share.batch_size,
                seconds=seconds,
            )
        else:
            yield from self._refused(given, outcome)
        return outcome

    def _prepare(self, stage: Stage) -> dict[str, nn.Parameter]:
        return self.denoiser.prepare_stage(stage, merge_lora=self.settings.training.merge_lora)

    def _condition_dropout(self, index: int) -> float:
        training = self.settings.training
        return training.condition_dropout if index == 0 else training.condition_dropout_later

    def _skipped(self, step: int, rows: tuple[int, ...]) -> Events:
        """Count images that could not be read; end the run when they are too many."""
        bad = sorted({*self.progress.bad_rows, *rows})
        self.progress.bad_rows = bad
        yield events.SamplesSkipped(step, rows, len(bad))
        limit = self.settings.training.max_bad_fraction
        if len(bad) > limit * len(self.data.train_rows):
            raise DataError(
                f"{len(bad)} of {len(self.data.train_rows)} training images cannot be read (limit {limit:.2%}); rows "
                f"{bad[:10]}: repair or remove them and prepare again, or raise training.max_bad_fraction"
            )

    def _refused(self, given: _Step, outcome: Outcome) -> Events:
        """Report a step whose loss or gradient was not finite; end the run when too many follow each other."""
        self.progress.refused_in_a_row += 1
        what = "loss" if outcome.faulty_rows else "gradient"
        rows = outcome.faulty_rows or self._rows_of(given.step - 1)
        in_a_row = self.progress.refused_in_a_row
        yield events.StepRefused(given.step, given.stage.name, rows, f"the {what} is not finite", in_a_row)
        if in_a_row >= self.settings.training.max_refused_steps:
            raise NonFiniteError(
                f"stage {given.stage.name}, step {given.step}: the {what} was not finite {in_a_row} times in a row, "
                f"last for rows {list(rows[:10])}; no parameter was changed by them. Lower optimiser.learning_rate "
                "(with --allow-change optimiser.learning_rate), use base.dtype float32, or check these images"
            )

    def _rows_of(self, step: int) -> tuple[int, ...]:
        positions = self.dataset.share.every_position()
        return tuple(self.dataset.order.rows_at(step * self.share.batch_size + positions).tolist())

    def _compare_names(self, stage: Stage) -> Events:
        """What the encoders down to the stage's rank make of the names of up to a thousand taxa; changes nothing."""
        taxa = np.unique(self.data.taxon_ids[self.data.train_rows])
        lineages = [self.data.lineage_of(int(taxon)) for taxon in taxa[:: max(1, len(taxa) // _NUM_COMPARED)]]
        conditioner = self.denoiser.conditioner
        conditioner.eval()
        spread = conditioner.name_spread([lineage.truncated(stage.rank) for lineage in lineages])
        if spread:
            yield events.NamesCompared(self.progress.step, stage.name, spread)

    def _watches(self, last: bool) -> tuple[bool, bool]:
        """Whether validation and previews are due after the step just given."""
        step, validation, preview = self.progress.step, self.settings.validation, self.settings.preview.every_steps
        validates = bool(validation.every_steps) and (last or step % validation.every_steps == 0)
        previews = last or (bool(preview) and step % preview == 0)
        return validates and len(self.data.validation_rows) > 0, previews

    def _watch(self, index: int, last: bool, optimiser: StageOptimiser) -> Events:
        """Validation and previews, on the moving average where one is kept; then all as before."""
        stage = self.plan[index]
        validate, preview = self._watches(last)
        if not (validate or preview):
            return
        with optimiser.averaged():
            if validate:
                yield self.validation.run(stage, self.progress.step)
            if preview and self.world.is_first:
                yield events.PreviewDue(self.progress.step, stage.name, stage.rank)
        self._prepare(stage)
