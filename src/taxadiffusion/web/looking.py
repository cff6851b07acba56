"""The process that looks for copies: for each picture the most like training photograph, and whether it is a copy."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from taxadiffusion.errors import TaxaDiffusionError
from taxadiffusion.names import Lineage, Rank

if TYPE_CHECKING:
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.evaluate.copies import CopyJudge
    from taxadiffusion.evaluate.side import Side
    from taxadiffusion.features import Extractor

SIZE_PX = 64
"""At which pictures and photographs are compared, as `evaluate` does."""
_EXPECTED = 0.01
"""Of unseen photographs that may be flagged."""


@dataclass(frozen=True, slots=True)
class Looking:
    """Where the photographs lie, what looks at them, and the base that made the pictures."""

    dataset: Path
    root: Path
    ranks: tuple[Rank, ...]
    base: str
    extractor: str
    weights: Path | None
    folder: Path
    """For features, which are kept."""


@dataclass(frozen=True, slots=True)
class Told:
    """How far it is, for people; `ready` where pictures can be looked at, `fault` where they never will be."""

    words: str
    ready: bool = False
    fault: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """To be looked at."""

    id: str
    path: Path
    lineage: Lineage


@dataclass(frozen=True, slots=True)
class Twin:
    """The training photograph that a picture is most like, by its row, and the verdict in words."""

    id: str
    row: int
    flagged: bool
    verdict: str


def look(pipe: Connection, looking: Looking) -> None:
    """Learn what copies look like, then judge the pictures that come, until the pages are gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(10)  # whoever draws goes first
    try:
        judge, extractor, rows = _prepared(looking, pipe)
        pipe.send(Told("", ready=True))
        while True:
            pipe.send(_twin(pipe.recv(), judge, extractor, rows))
    except TaxaDiffusionError as error:
        pipe.send(Told(str(error), fault=True))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _prepared(looking: Looking, pipe: Connection) -> tuple[CopyJudge, Extractor, dict[str, int]]:
    from taxadiffusion.base.backbone import Backbone
    from taxadiffusion.dataset import PreparedDataset
    from taxadiffusion.evaluate.copies import CopyJudge, CopySettings
    from taxadiffusion.evaluate.pictures import unseen_split
    from taxadiffusion.evaluate.planted import Planter
    from taxadiffusion.features import open_extractor

    dataset = PreparedDataset.open(looking.dataset, looking.root)
    extractor = open_extractor(looking.extractor, looking.weights)
    planter = Planter(Backbone.load(looking.base))
    train = _side(dataset, "train", looking, extractor, pipe)
    unseen = _side(dataset, unseen_split(dataset), looking, extractor, pipe)
    how = CopySettings(SIZE_PX, _EXPECTED, seed=0)
    judge = CopyJudge(train, unseen, extractor, planter, how, lambda words: pipe.send(Told(words)))
    rows = {str(dataset.record(int(row)).path): int(row) for row in dataset.rows("train")}
    return judge, extractor, rows


def _side(dataset: PreparedDataset, split: str, looking: Looking, extractor: Extractor, pipe: Connection) -> Side:
    """The photographs of a split that show a taxon of the model, by its ranks."""
    from taxadiffusion.evaluate.extraction import FeatureStore
    from taxadiffusion.evaluate.pictures import photographs
    from taxadiffusion.evaluate.side import Side

    shown = photographs(dataset, split, looking.ranks)

    def told(done: int, total: int) -> None:
        pipe.send(Told(f"looking at photographs of the {split} split: {done} of {total}"))

    features = FeatureStore(looking.folder / "features", with_data=True).features(shown, extractor, SIZE_PX, told)
    lineages = tuple(lineage.only(looking.ranks) for lineage in shown.lineages)
    return Side(features, lineages, shown.files, (0,) * len(shown), shown.load)


def _twin(picture: Picture, judge: CopyJudge, extractor: Extractor, rows: dict[str, int]) -> Twin:
    from taxadiffusion.evaluate.side import Side
    from taxadiffusion.images import load_image

    image = load_image(picture.path, SIZE_PX)
    side = Side(extractor(image[None]), (picture.lineage,), (str(picture.path),), (0,), lambda *_: image)
    found = judge(side, str(picture.lineage.rank))
    (pair,) = found.pairs
    why = found.cannot_tell()
    sight = f"finds {found.eyesight['picture'].judged} planted copies, flags {_EXPECTED:.0%} of unseen photographs"
    verdict = f"cannot tell: {why}" if why else f"{'flagged as a copy' if pair.flagged else 'no copy'} (it {sight})"
    return Twin(picture.id, rows[pair.photograph], pair.flagged, verdict)
