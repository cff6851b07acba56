"""The process that owns the model and draws: one job after another, told and stopped through a pipe."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from taxadiffusion.errors import TaxaDiffusionError
from taxadiffusion.web.ask import Ask
from taxadiffusion.web.served import ModelFacts

if TYPE_CHECKING:
    from taxadiffusion.adapter import Adapter

_NICE = 10
"""Who reads goes before who draws."""

STOP = "stop"
"""What the pages say to have the job at hand ended."""


@dataclass(frozen=True, slots=True)
class Opening:
    """Which model, and where pictures go. As `open_model` takes them."""

    model: str
    base: str | None
    device: Literal["auto", "cpu", "cuda", "mps"]
    store: Path


@dataclass(frozen=True, slots=True)
class Refused:
    """The model cannot be opened."""

    message: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Stepped:
    """One step of a picture is done."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture lies there. new: it was made now."""

    path: Path
    recipe: dict[str, str]
    new: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """The job is over. fault: why not all of it was drawn; "" where it was, None where it was stopped."""

    fault: str | None


Word = ModelFacts | Refused | Stepped | Drawn | Ended


class _StoppedError(Exception):
    """Between two steps, when the pages say so."""


def work(pipe: Connection, opening: Opening) -> None:
    """Open the model and draw what comes, until the pages are gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the pages, which close the pipe
    os.nice(_NICE)
    try:
        adapter, facts = _opened(opening)
    except TaxaDiffusionError as error:
        pipe.send(Refused(str(error), error.exit_code))
        return
    try:
        pipe.send(facts)
        while True:
            ask = pipe.recv()
            if isinstance(ask, Ask):  # a stop that came too late is passed over
                pipe.send(_drawn(adapter, ask, opening.store, pipe))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _opened(opening: Opening) -> tuple[Adapter, ModelFacts]:
    from taxadiffusion.adapter import open_model
    from taxadiffusion.base.device import chosen_device, described

    where = chosen_device(opening.device)
    adapter = open_model(opening.model, base=opening.base, device=where)
    card = adapter.card
    facts = ModelFacts(
        card.ranks,
        adapter.taxonomy.to_json(),
        card.image_size_px,
        card.base,
        card.content_hash,
        described(where),
        str(adapter.path),
    )
    return adapter, facts


def _drawn(adapter: Adapter, ask: Ask, store: Path, pipe: Connection) -> Ended:
    """Make what is missing, one picture at a time: alone each is the same whatever it is asked for with."""
    from taxadiffusion.pictures.generate import Sampling, file_name, recipes_of
    from taxadiffusion.pictures.png import is_whole, save_picture
    from taxadiffusion.sampler import Request, Sampler

    sampling = Sampling(ask.steps, batch_size=1)

    def stepped() -> None:
        pipe.send(Stepped())
        if pipe.poll() and pipe.recv() == STOP:
            raise _StoppedError

    try:
        requests = [Request(taxon, seed, ask.guidance, ask.towards, ask.fraction) for taxon, seed in ask.drawn]
        notes = {ask.lineage: ask.note} if ask.note else {}
        recipes = recipes_of(adapter, requests, sampling, notes)
        paths = [store / Path(file_name(*pair)).name for pair in zip(requests, recipes, strict=True)]
        missing = []
        for i, path in enumerate(paths):
            if path.is_file() and is_whole(path):
                pipe.send(Drawn(path, recipes[i], new=False))
            else:
                missing.append(i)
        sampler = Sampler(adapter.denoiser, size_px=adapter.card.image_size_px, on_step=stepped)
        samples = sampler([requests[i] for i in missing], num_steps=ask.steps, batch_size=1)
        for i, sample in zip(missing, samples, strict=True):
            save_picture(sample.image, paths[i], recipes[i])
            pipe.send(Drawn(paths[i], recipes[i], new=True))
    except _StoppedError:
        return Ended(None)
    except TaxaDiffusionError as error:
        return Ended(str(error))
    except OSError as error:
        return Ended(f"the picture cannot be written: {error.strerror}")
    return Ended("")
