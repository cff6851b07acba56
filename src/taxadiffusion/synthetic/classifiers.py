"""The classifiers that are trained with and without synthetic pictures: a probe on features, and a small network."""

# N pictures, K classes, D feature width, M photographs to name
from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from taxadiffusion.metrics.probe import at_even_odds, fit_probe

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
ClassifierName = Literal["probe", "network"]

PROBE: ClassifierName = "probe"
NETWORK: ClassifierName = "network"


@dataclass(frozen=True, slots=True)
class Pack:
    """Pictures with features and labels, (N, 3, s, s), (N, D) and (N,)."""

    images: NDArray[np.uint8]
    features: Floats
    labels: Ints

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Ints) -> Pack:
        return Pack(self.images[rows], self.features[rows], self.labels[rows])

    def with_(self, other: Pack) -> Pack:
        """These, then the others."""
        if not len(other):
            return self
        return Pack(
            np.concatenate([self.images, other.images]),
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
        )


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Of the small network. Every row of a comparison gets the same number of steps, however many pictures it has."""

    num_steps: int = 1000
    batch_size: int = 64
    width: int = 16
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    device: str = "cpu"


def named_by_probe(
    learnt: Pack, classes: tuple[str, ...], penalty: float, shown: Pack, *, even: bool = False
) -> tuple[Ints, Floats]:
    """(M,) classes that a probe names, and how sure it is of each. penalty: of `choose_penalty`.

    even: as if all classes were equally frequent.
    """
    found = fit_probe(learnt.features, learnt.labels, classes, inverse_penalty=penalty)
    logits = found.log_probabilities(shown.features.astype(np.float64))
    return _surest(logits, np.bincount(learnt.labels, minlength=len(classes)) if even else None)


def named_by_network(
    learnt: Pack, num_classes: int, settings: NetworkSettings, seed: int, shown: Pack, *, even: bool = False
) -> tuple[Ints, Floats]:
    """The same by a network of four convolutions, trained end to end from random weights.

    Everything follows from `seed` on one device. Pictures are mirrored and shifted at random while it learns.
    """
    device = torch.device(settings.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _network(num_classes, settings.width).to(device)
    draw = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.learning_rate, total_steps=settings.num_steps, pct_start=0.2
    )
    images, labels = torch.from_numpy(learnt.images), torch.from_numpy(np.asarray(learnt.labels, dtype=np.int64))
    network.train()
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(settings.num_steps):
        while len(order) < settings.batch_size:
            order = torch.cat([order, torch.randperm(len(labels), generator=draw)])
        rows, order = order[: settings.batch_size], order[settings.batch_size :]
        loss = nn.functional.cross_entropy(
            network(_changed(_pixels(images[rows]), draw).to(device)), labels[rows].to(device)
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(shown.images), settings.batch_size)
        logits = torch.cat([network(_pixels(part).to(device)).cpu() for part in parts]).double().numpy()
    return _surest(logits, np.bincount(learnt.labels, minlength=num_classes) if even else None)


def _surest(logits: Floats, counts: Ints | None) -> tuple[Ints, Floats]:
    """(M,) the best class of each row of (M, K), and its probability; with counts (K,) at even odds."""
    chances = softmax(logits if counts is None else at_even_odds(logits, counts), axis=1)
    return chances.argmax(1), chances.max(1)


def _pixels(images: Tensor) -> Tensor:
    """uint8 → float around 0."""
    return images.float() / 127.5 - 1


def _changed(batch: Tensor, draw: torch.Generator) -> Tensor:
    """Each mirrored or not, and shifted by up to an eighth of its side."""
    side = batch.shape[-1]
    most = side // 8
    mirrored = torch.rand(len(batch), generator=draw) < 0.5
    batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
    padded = nn.functional.pad(batch, (most, most, most, most), mode="reflect")
    places = torch.randint(0, 2 * most + 1, (len(batch), 2), generator=draw).tolist()
    return torch.stack(
        [one[:, top : top + side, left : left + side] for one, (top, left) in zip(padded, places, strict=True)]
    )


def _network(num_classes: int, width: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for out in (width, 2 * width, 4 * width, 8 * width):
        layers += [nn.Conv2d(channels, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))
