"""The loss on held-out images: the same images, noise levels and noise each time, so that only the weights matter."""

from __future__ import annotations

import numpy as np
import torch

from taxadiffusion.stages import Stage
from taxadiffusion.trainer import events
from taxadiffusion.trainer.gradients import Gradients
from taxadiffusion.trainer.loader import MicroBatches, Share
from taxadiffusion.trainer.order import Order
from taxadiffusion.trainer.settings import LoopSettings


class Validation:
    """Mean loss over `num_samples` draws of the validation split, shared among the processes; changes nothing."""

    def __init__(self, gradients: Gradients, settings: LoopSettings) -> None:
        self.gradients = gradients
        self.settings = settings

    def run(self, stage: Stage, step: int) -> events.Validated:
        """At the stage's rank (the finest, where depths are drawn), without dropout, noise levels spread evenly."""
        gradients = self.gradients
        world = gradients.world
        size = gradients.share.size
        num_samples = size * world.num_processes * max(1, self._wanted() // (size * world.num_processes))
        share = Share(num_samples, size, world.process_index, world.num_processes)
        order = Order(self.settings.seed, gradients.data.validation_rows)
        dataset = MicroBatches(gradients.data.source, order, share, timesteps="stratified", purpose="validation")
        found = []
        gradients.denoiser.eval()
        with torch.no_grad():
            for number in range(share.accumulation):
                batch = dataset[number]
                losses = gradients.losses(stage, batch, condition_dropout=0.0, rank_dropout=0.0, truncation=0.0)
                found.append(losses.plain)
        # Added up in float64 on the host: a device need not have it.
        every = np.array(world.gathered(torch.cat(found).tolist()), dtype=np.float64)
        return events.Validated(step, stage.name, float(every.mean()), len(every))

    def _wanted(self) -> int:
        return min(self.settings.validation.num_samples, max(1, len(self.gradients.data.validation_rows)))
