"""One step's forward and backward passes: this process's share of the global batch, and what all processes saw."""

# Letters: b samples of a micro-batch, B of the global batch.
from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion.base.device import seed_dropout
from taxadiffusion.base.transfer import Reading, moved
from taxadiffusion.denoiser import Batch, Denoiser, Losses
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.stages import Stage
from taxadiffusion.trainer.conditions import conditions, drawn_depth
from taxadiffusion.trainer.loader import LatentSource, MicroBatch, Share
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.order import Order, Part
from taxadiffusion.trainer.randomness import torch_seed
from taxadiffusion.trainer.settings import LoopSettings
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.world import World


@dataclass(frozen=True, slots=True)
class Replay:
    """Of the training rows, those that keep what a model knew before, and their share of the samples."""

    rows: NDArray[np.int64]
    share: float


@dataclass(frozen=True)
class TrainingData:
    """What a run trains on: latents by row, and the lineage of each row."""

    source: LatentSource
    train_rows: NDArray[np.int64]
    validation_rows: NDArray[np.int64]
    taxon_ids: NDArray[np.int32]  # of every row of the data set
    lineage_of: Callable[[int], Lineage]  # taxon id → its lineage, over the ranks that are trained
    ranks: tuple[Rank, ...]
    in_worker: Callable[[], None] | None = None  # what a process that prepares micro-batches does first
    replay: Replay | None = None

    def order(self, seed: int, balance: float) -> Order:
        """Which row each sample of the run is."""
        taxon_ids = self.taxon_ids
        if self.replay is None:
            return Order.balanced(seed, self.train_rows, taxon_ids[self.train_rows], balance)
        again, share = self.replay.rows, self.replay.share
        new = np.setdiff1d(self.train_rows, again)
        parts = [Part(new, taxon_ids[new], 1 - share), Part(again, taxon_ids[again], share)]
        return Order.mixed(seed, parts, balance)


@dataclass(frozen=True, slots=True)
class Issued:
    """A step whose passes the device was given. What they came to is still on its way: `Gradients.outcome` waits."""

    numbers: Reading  # losses of all micro-batches, unreadable images, SIGINT, other stops, norm: of all processes
    not_finite: Tensor  # () 1.0 where the step must change nothing, on the device
    stop: int  # number of the signal that this process had received
    bad_rows: tuple[int, ...]  # of this process
    samples: tuple[tuple[NDArray[np.int64], Tensor], ...]  # its rows, and whether each one's own loss is finite


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step came to; the same on every process."""

    loss: float  # mean over the global batch, unweighted
    grad_norm: float
    stop: int  # number of the signal that any process received; 0: none
    bad_rows: tuple[int, ...]  # images that could not be read
    faulty_rows: tuple[int, ...]  # samples whose own loss is not finite

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss) and math.isfinite(self.grad_norm)


class Gradients:
    """Computes the gradients of one optimizer step, over micro-batches and processes."""

    def __init__(
        self,
        denoiser: Denoiser,
        data: TrainingData,
        settings: LoopSettings,
        share: Share,
        world: World,
        stop: StopSignal,
    ) -> None:
        self.denoiser = denoiser
        self.data = data
        self.settings = settings
        self.share = share
        self.world = world
        self.stop = stop
        self.lineage_of = lru_cache(maxsize=None)(data.lineage_of)

    def step(
        self, stage: Stage, condition_dropout: float, optimiser: StageOptimiser, batches: Iterator[MicroBatch]
    ) -> Issued:
        """Leaves the summed, clipped gradients on the parameters of the stage (at the step's own depth, if drawn): F9.

        Waits for the device nowhere, but with several processes once, where they agree on what was used.
        """
        # Summed losses of every micro-batch, each in its own place; then bad samples, SIGINT, other stops. Numbers that
        # are only put beside each other reach the host exactly in float32, and are added up there.
        num_blocks = self.share.accumulation * self.world.num_processes
        total = torch.zeros(num_blocks + 3, device=self.world.device)
        bad: list[int] = []
        samples = []
        for index in range(self.share.accumulation):
            batch = next(batches)
            if stage.random_depth:
                stage = stage.at(drawn_depth(self.settings.seed, batch.step, self.data.ranks))
                self.denoiser.prepare_stage(stage)
            losses = self.losses(
                stage,
                batch,
                condition_dropout=condition_dropout,
                rank_dropout=self.settings.training.rank_dropout,
                truncation=self.settings.training.truncation,
            )
            weights = moved(torch.from_numpy(batch.readable), losses.weighted.device).to(losses.weighted)
            loss = (losses.weighted * weights).sum() / self.share.batch_size
            if loss.requires_grad:  # else no sample reaches what the stage trains, e.g. all of them are null
                loss.backward()  # type: ignore[no-untyped-call]
            own = losses.plain.detach()
            total[index * self.world.num_processes + self.world.process_index] = own.sum()
            bad += batch.rows[~batch.readable].tolist()
            samples.append((batch.rows, torch.isfinite(own)))
        total[num_blocks] = len(bad)
        stop = self.stop.number
        if stop:
            total[num_blocks + (1 if stop == signal.SIGINT else 2)] = 1
        self.world.sum_(total)
        norm = moved(optimiser.reduced_norm(self.world), total.device)
        finite = torch.isfinite(total[:num_blocks]).all() & torch.isfinite(norm)
        return Issued(
            numbers=Reading(torch.cat([total, norm.reshape(1).to(total)])),
            not_finite=(~finite).float(),
            stop=stop,
            bad_rows=tuple(bad),
            samples=tuple(samples),
        )

    def outcome(self, issued: Issued) -> Outcome:
        """What a step came to, once the device has done it. All processes ask together."""
        *sums, num_bad, interrupts, stops, norm = issued.numbers.values()
        loss_mean = sum(sums) / self.share.batch_size
        faulty: list[int] = []
        finite = math.isfinite(loss_mean) and math.isfinite(norm)
        if not finite:
            faulty = [row for rows, good in issued.samples for row in rows[~good.cpu().numpy()].tolist()]
        return Outcome(
            loss=loss_mean,
            grad_norm=norm,
            stop=signal.SIGINT if interrupts else signal.SIGTERM if stops else 0,
            bad_rows=tuple(self.world.gathered(issued.bad_rows)) if num_bad else (),
            faulty_rows=() if finite else tuple(self.world.gathered(faulty)),
        )

    def losses(
        self, stage: Stage, batch: MicroBatch, *, condition_dropout: float, rank_dropout: float, truncation: float
    ) -> Losses:
        """Per-sample losses (b,), before a sample that could not be read is left out."""
        lineages = [self.lineage_of(taxon_id) for taxon_id in self.data.taxon_ids[batch.rows].tolist()]
        chosen = conditions(
            lineages,
            stage.rank,
            batch.draws,
            condition_dropout=condition_dropout,
            rank_dropout=rank_dropout,
            truncation=truncation,
        )
        device = self.world.device
        uniform = moved(torch.from_numpy(batch.draws.timestep).float(), device)
        timesteps = self.denoiser.backbone.schedule.timesteps_of(uniform)  # (b,)
        seed_dropout(device, torch_seed(self.settings.seed, batch.step, int(batch.positions[0])))
        return self.denoiser.losses(Batch(moved(batch.latents, device), chosen, moved(batch.noise, device), timesteps))
