"""The loop: every stage in turn, a commit now and then, and an event for everything that happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import DataError, NonFiniteError
from taxadiffusion.stages import Stage
from taxadiffusion.trainer import events
from taxadiffusion.trainer.gradients import Gradients, Outcome, TrainingData
from taxadiffusion.trainer.history import Identity, Progress, RunHistory
from taxadiffusion.trainer.loader import MicroBatch, MicroBatches, Share, loader_faults, micro_batches
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.order import Order
from taxadiffusion.trainer.settings import LoopSettings
from taxadiffusion.trainer.signals import StopSignal, stop_error
from taxadiffusion.trainer.validation import Validation
from taxadiffusion.trainer.world import World

_NUM_COMPARED = 1000

Events = events.EventStream


class Trainer:
    """Trains `denoiser` through `plan`, resuming from the newest good commit in `run_dir`.

    The caller holds the run's lock. `export` writes the finished adapter to the path it is given, whole or not
    at all. Iterating `run` raises `CheckpointError`, `DataError`, `NonFiniteError`, `SettingsError`, `PreemptedError`
    or `InterruptedByUserError`; after the last two, and after a kill, the same command goes on exactly.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        plan: Sequence[Stage],
        data: TrainingData,
        settings: LoopSettings,
        run_dir: Path,
        identity: Identity,
        *,
        export: Callable[[Path], object],
        world: World | None = None,
        stop: StopSignal | None = None,
        in_worker: Callable[[], None] | None = None,
        allow_change: Sequence[str] = (),
    ) -> None:
        self.denoiser = denoiser
        self.plan = tuple(plan)
        self.data = data
        self.settings = settings
        self.world = world or World()
        self.stop = stop or StopSignal()
        self.in_worker = in_worker
        self.history = RunHistory(run_dir, identity, self.plan, settings, self.world, export, allow_change)
        training = settings.training
        self.share = Share.of(
            training.batch_size, training.micro_batch_size, self.world.process_index, self.world.num_processes
        )
        order = Order.balanced(settings.seed, data.train_rows, data.taxon_ids[data.train_rows], training.balance)
        self.dataset = MicroBatches(data.source, order, self.share, timesteps=training.timesteps)
        self.gradients = Gradients(denoiser, data, settings, self.share, self.world, self.stop)
        self.validation = Validation(self.gradients, settings)
        self.progress = Progress()

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
            batches = micro_batches(self.dataset, start, stop, self.settings.num_workers, self.in_worker)
            with loader_faults():
                for index in range(self.progress.stage, len(self.plan)):
                    yield from self._run_stage(index, batches, trained)
        self.history.export(again=not already)
        yield events.Finished(self.progress.step, already)

    def _run_stage(self, index: int, batches: Iterator[MicroBatch], trained: dict[str, nn.Parameter]) -> Events:
        stage = self.plan[index]
        first_step = sum(earlier.num_steps for earlier in self.plan[:index])
        if self.progress.step == first_step:
            self.denoiser.begin_stage(stage)
        own = self._prepare(stage)
        optimiser = StageOptimiser(own, self.settings.optimiser, stage.num_steps)
        if self.progress.step > first_step:
            self.history.restore_optimiser(optimiser)
        num_trained = sum(parameter.numel() for parameter in own.values())
        seen = self.progress.step * self.share.batch_size
        yield events.StageStarted(self.progress.step, stage.name, stage.num_steps, num_trained, seen)
        while self.progress.step < first_step + stage.num_steps:
            stage_step = self.progress.step - first_step
            last = stage_step + 1 == stage.num_steps
            outcome = yield from self._step(index, stage_step, optimiser, batches)
            if last:
                optimiser.end_on_average()
                self.progress.stage = index + 1
            if last or outcome.stop or self.progress.step % self.settings.checkpoint.every_steps == 0:
                yield self.history.commit(self.progress, trained, None if last else optimiser)
            if outcome.stop:
                raise stop_error(outcome.stop, f"stopped by a signal after committing step {self.progress.step}")
            yield from self._watch(index, last, optimiser)
        yield from self._compare_names(stage)
        yield events.StageDone(self.progress.step, stage.name)

    def _step(
        self, index: int, stage_step: int, optimiser: StageOptimiser, batches: Iterator[MicroBatch]
    ) -> Generator[events.Event, None, Outcome]:
        started = time.perf_counter()
        stage = self.plan[index]
        outcome = self.gradients.step(stage, self._condition_dropout(index), optimiser, batches)
        if outcome.bad_rows:
            yield from self._skipped(outcome.bad_rows)
        self.progress.step += 1
        if outcome.finite:
            rate = optimiser.update(stage_step)
            optimiser.clear_gradients()
            self.progress.refused_in_a_row = 0
            yield events.StepDone(
                step=self.progress.step,
                stage=stage.name,
                stage_step=stage_step + 1,
                loss=outcome.loss,
                grad_norm=outcome.grad_norm,
                learning_rate=rate,
                num_samples_seen=self.progress.step * self.share.batch_size,
                seconds=time.perf_counter() - started,
            )
        else:
            optimiser.clear_gradients()
            yield from self._refused(stage, outcome)
        return outcome

    def _prepare(self, stage: Stage) -> dict[str, nn.Parameter]:
        return self.denoiser.prepare_stage(stage, merge_lora=self.settings.training.merge_lora)

    def _condition_dropout(self, index: int) -> float:
        training = self.settings.training
        return training.condition_dropout if index == 0 else training.condition_dropout_later

    def _skipped(self, rows: tuple[int, ...]) -> Events:
        """Count images that could not be read; end the run when they are too many."""
        bad = sorted({*self.progress.bad_rows, *rows})
        self.progress.bad_rows = bad
        yield events.SamplesSkipped(self.progress.step + 1, rows, len(bad))
        limit = self.settings.training.max_bad_fraction
        if len(bad) > limit * len(self.data.train_rows):
            raise DataError(
                f"{len(bad)} of {len(self.data.train_rows)} training images cannot be read (limit {limit:.2%}); rows "
                f"{bad[:10]}: repair or remove them and prepare again, or raise training.max_bad_fraction"
            )

    def _refused(self, stage: Stage, outcome: Outcome) -> Events:
        """Report a step whose loss or gradient was not finite; end the run when too many follow each other."""
        self.progress.refused_in_a_row += 1
        what = "loss" if outcome.faulty_rows else "gradient"
        rows = outcome.faulty_rows or self._rows_of(self.progress.step - 1)
        in_a_row = self.progress.refused_in_a_row
        yield events.StepRefused(self.progress.step, stage.name, rows, f"the {what} is not finite", in_a_row)
        if in_a_row >= self.settings.training.max_refused_steps:
            raise NonFiniteError(
                f"stage {stage.name}, step {self.progress.step}: the {what} was not finite {in_a_row} times in a row, "
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

    def _watch(self, index: int, last: bool, optimiser: StageOptimiser) -> Events:
        """Validation and previews, on the moving average where one is kept; then all as before."""
        stage = self.plan[index]
        every = self.settings.validation.every_steps
        validate = bool(every) and (last or self.progress.step % every == 0) and len(self.data.validation_rows) > 0
        every = self.settings.preview_every_steps
        preview = last or (bool(every) and self.progress.step % every == 0)
        if not (validate or preview):
            return
        with optimiser.averaged():
            if validate:
                yield self.validation.run(stage, self.progress.step)
            if preview and self.world.is_first:
                yield events.PreviewDue(self.progress.step, stage.name, stage.rank)
        self._prepare(stage)
