"""What old taxa lost where a run went on from an adapter: losses, or else predictions, before and after."""

# Letters: B samples of a forward pass, P photographs drawn.
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion.base.transfer import moved
from taxadiffusion.base.weights import read_json
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import whole
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.trainer.gradients import TrainingData
from taxadiffusion.trainer.loader import MicroBatches, Share
from taxadiffusion.trainer.order import Order

FILE = "kept.json"
NUM_SAMPLES = 128
"""Draws of photographs of each kind of taxa, every taxon as often; the same photographs, noise and noise levels before
and after."""
NUM_TAXA = 32
"""Old taxa whose predictions are compared where there are no photographs of them."""

_SIZE = 16


@dataclass(frozen=True)
class RankLoss:
    """Mean square error of the prediction, conditions cut at `rank`. error: of the change, its standard error."""

    taxa: str
    """"old" or "new"."""
    photographs: str
    """"held out" of this run, or "trained on"."""
    rank: Rank
    num_photographs: int
    before: float
    after: float
    error: float


@dataclass(frozen=True)
class RankChange:
    """How far predictions on fixed noises moved: mean squares, as a share of what the taxon's names change in them.

    1 would be as far as from a prediction that knows the taxon to one that knows nothing of it. It does not say whether
    pictures became worse.
    """

    rank: Rank
    num_taxa: int
    moved: float


@dataclass(frozen=True)
class Kept:
    """losses: of new taxa, and of old ones if there are photographs; changes: of old ones if there are none."""

    losses: tuple[RankLoss, ...]
    changes: tuple[RankChange, ...]

    def lines(self) -> list[str]:
        """A table in Markdown of each, with what it says."""
        text: list[str] = []
        if self.losses:
            text += [
                "Loss before and after, on the same photographs and noises (± standard error of the change):",
                "",
                "| taxa | photographs | condition down to | before | after | change |",
                "|---|---|---|---|---|---|",
            ]
            for loss in self.losses:
                change = 100 * (loss.after - loss.before) / max(loss.before, 1e-12)
                error = 100 * loss.error / max(loss.before, 1e-12)
                text.append(
                    f"| {loss.taxa} | {loss.num_photographs} {loss.photographs} | {loss.rank} | {loss.before:.4f} | "
                    f"{loss.after:.4f} | {change:+.1f} % ± {error:.1f} |"
                )
            text.append("")
        if self.changes:
            text += [
                "No photographs of old taxa were given, so what they lost is not known. How far their predictions on",
                "fixed noises moved, as a share of what a taxon's names change in them (0: not at all):",
                "",
                "| condition down to | old taxa | moved |",
                "|---|---|---|",
                *(f"| {change.rank} | {change.num_taxa} | {change.moved:.3f} |" for change in self.changes),
                "",
            ]
        return text


def measure(
    denoiser: Denoiser, begun: Mapping[str, Mapping[str, Tensor]], data: TrainingData, num_known: int, seed: int
) -> Kept:
    """Compare the denoiser as it is now with what it was (its state `begun`); it is left as it was, bit for bit.

    num_known: the first so many taxa are old.
    """
    after = denoiser.state()
    kinds = _kinds(data, num_known)
    old = [lineage for number in range(num_known) if (lineage := data.lineage_of(number)).rank == data.ranks[-1]]
    old = old[:: max(1, len(old) // NUM_TAXA)][:NUM_TAXA]
    compared = () if any(kind[0] == "old" for kind in kinds) else tuple(old)

    def now() -> tuple[list[list[NDArray[np.float64]]], list[Tensor]]:
        denoiser.eval()
        with torch.no_grad():
            losses = [[_losses(denoiser, data, rows, rank, seed) for rank in data.ranks] for _, _, rows in kinds]
            return losses, [_predictions(denoiser, data, compared, rank, seed) for rank in data.ranks if compared]

    denoiser.load_state(after, "the run")  # nothing is merged, as nothing is before
    ends = now()
    denoiser.load_state(begun, "the adapter gone on from")
    starts = now()
    denoiser.load_state(after, "the run")
    losses = [
        RankLoss(
            taxa, how, rank, len(np.unique(rows)), float(first.mean()), float(last.mean()),
            float((last - first).std(ddof=1) / len(first) ** 0.5) if len(first) > 1 else 0.0,
        )
        for (taxa, how, rows), before, behind in zip(kinds, starts[0], ends[0], strict=True)
        for rank, first, last in zip(data.ranks, before, behind, strict=True) if len(first)
    ]  # fmt: skip
    changes = [
        RankChange(
            rank, len(compared), float((last[0] - first[0]).square().mean() / (first[0] - first[1]).square().mean())
        )
        for rank, first, last in zip(data.ranks, starts[1], ends[1], strict=False)
    ]
    return Kept(tuple(losses), tuple(changes))


def record(kept: Kept, run_dir: Path) -> None:
    """Write it into the run directory. Raises `CheckpointError`."""
    try:
        with whole(run_dir / FILE) as aside:
            aside.write_text(json.dumps(asdict(kept), indent=1), encoding="utf-8")
    except OSError as error:
        raise CheckpointError(f"{run_dir / FILE}: cannot be written ({error.strerror}); make room") from error


def read_kept(run_dir: Path) -> Kept | None:
    """What `record` wrote; None where nothing was. Raises `CheckpointError`."""
    if not (run_dir / FILE).is_file():
        return None
    document = read_json(run_dir / FILE)
    try:
        losses = tuple(RankLoss(**entry) for entry in document["losses"])
        return Kept(losses, tuple(RankChange(**entry) for entry in document["changes"]))
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{run_dir / FILE}: not what a run writes ({error!r}); delete it") from error


def _kinds(data: TrainingData, num_known: int) -> list[tuple[str, str, NDArray[np.int64]]]:
    """Old taxa on held-out photographs; new ones too, or where there are none on those that they are learned from."""
    found = []
    for taxa, is_kind in (("old", np.less), ("new", np.greater_equal)):
        held_out = data.validation_rows[is_kind(data.taxon_ids[data.validation_rows], num_known)]
        trained = data.train_rows[is_kind(data.taxon_ids[data.train_rows], num_known)]
        if len(held_out):
            found.append((taxa, "held out", held_out))
        elif len(trained):
            found.append((taxa, "trained on", trained))
    return found


def _losses(
    denoiser: Denoiser, data: TrainingData, rows: NDArray[np.int64], rank: Rank, seed: int
) -> NDArray[np.float64]:
    """(P,) of the photographs that can be read, conditions cut at `rank`."""
    share = Share(NUM_SAMPLES, _SIZE, 0, 1)
    order = Order.balanced(seed, rows, data.taxon_ids[rows], 1.0)
    dataset = MicroBatches(data.source, order, share, timesteps="stratified", purpose="validation")
    found = []
    for number in range(share.accumulation):
        batch = dataset[number]
        lineages = [data.lineage_of(taxon).truncated(rank) for taxon in data.taxon_ids[batch.rows].tolist()]
        device = denoiser.conditioner.device
        uniform = moved(torch.from_numpy(batch.draws.timestep).float(), device)
        steps = denoiser.backbone.schedule.timesteps_of(uniform)
        losses = denoiser.losses(Batch(moved(batch.latents, device), lineages, moved(batch.noise, device), steps))
        found.append(losses.plain.double().cpu().numpy()[batch.readable])
    return np.concatenate(found)


def _predictions(denoiser: Denoiser, data: TrainingData, taxa: Sequence[Lineage], rank: Rank, seed: int) -> Tensor:
    """(2, taxa, C, H, W): of pure noise at levels spread evenly, under each taxon cut at `rank`, and under nothing."""
    device = denoiser.conditioner.device
    noise = torch.randn(len(taxa), *data.source.latent_shape, generator=torch.Generator().manual_seed(seed))
    uniform = (torch.arange(len(taxa)) + 0.5) / len(taxa)
    steps = denoiser.backbone.schedule.timesteps_of(moved(uniform, device))
    found = []
    for conditions in ([taxon.truncated(rank) for taxon in taxa], [Lineage()] * len(taxa)):
        parts = [slice(start, start + _SIZE) for start in range(0, len(taxa), _SIZE)]
        predicted = [
            denoiser.backbone(moved(noise[part], device), steps[part], denoiser.conditioner.distinct(conditions[part]))
            for part in parts
        ]
        found.append(torch.cat(predicted))
    return torch.stack(found).cpu()
