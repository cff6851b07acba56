"""The images of a table's rows: a model is trained where it is not, and draws what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.evaluate.image_plan import ImagePlan, generated_pictures
from taxadiffusion.evaluate.judges import Tell
from taxadiffusion.evaluate.pictures import Pictures
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.generate import Sampling
from taxadiffusion.pictures.weaker import open_weaker
from taxadiffusion.tables.earlier import earlier_commit
from taxadiffusion.tables.training import Model, OnEvent, trained
from taxadiffusion.trainer.signals import StopSignal

_BASES = {"ancestor": "unconditional", "sister": "sister", "weaker model": "weaker"}


@dataclass(frozen=True, slots=True)
class RowImages:
    """Where and how the models of all rows draw. `stop` ends it between two images, or two steps of a training."""

    base: str
    folder: Path
    """A folder a model below it, and in this a folder a recipe."""
    per_taxon: int
    sampling: Sampling
    device: str
    stop: StopSignal
    progress: Tell

    def opened(self, model: Model, words: str) -> Adapter:
        """Train the model where it is not trained, and open it. words: what for."""
        self.stop.raise_if_set(words)
        self.progress(f"{words}: training")
        trained_at = trained(model, self.stop, told_of(words, self.progress), device=self.device)
        return open_model(str(trained_at), base=self.base, device=self.device)

    def __call__(
        self, adapter: Adapter, model: Model, taxa: Sequence[Lineage], guidance: Guidance, words: str
    ) -> Pictures:
        """The images of a row by one model, made where they are not there."""
        sampling = self.sampling
        if guidance.base == "weaker model" and (commit := earlier_commit(model, adapter.card.ranks)):
            sampling = replace(sampling, weaker=open_weaker(commit, adapter, base=self.base))
        plan = ImagePlan(self.per_taxon, 0, guidance, sampling)

        def made(done: int, total: int) -> None:
            self.progress(f"{words}: image {done} of {total}")
            self.stop.raise_if_set(words)

        folder = self.folder / model.run_dir.name / recipe_folder(guidance, self.sampling)
        return generated_pictures(adapter, taxa, plan, folder, made)


def told_of(words: str, progress: Tell) -> OnEvent:
    """Tells how far a training is."""

    def step(event: object) -> None:
        stage, number = getattr(event, "stage", None), getattr(event, "step", None)
        if stage is not None and number is not None:
            progress(f"{words}: training {stage}, step {number}")

    return step


def recipe_folder(guidance: Guidance, sampling: Sampling) -> str:
    """A folder's name for all that a model's images may differ in, beside taxon and seed: a folder holds one recipe."""
    low, high = guidance.interval
    parts = [f"scale{guidance.scale:g}", guidance.rank or _BASES[guidance.base], f"{low:g}-{high:g}"]
    return "-".join([*parts, f"{sampling.num_steps}steps", sampling.engine])
