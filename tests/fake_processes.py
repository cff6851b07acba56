"""The processes beside the pages, without torch and photographs."""

from __future__ import annotations

import os
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from taxadiffusion.web.looking import Looking, Picture, Told, Twin

if TYPE_CHECKING:
    from taxadiffusion.web.worker import Opening


def look(pipe: Connection, looking: Looking) -> None:
    """Every picture's twin is row 7, and one that is called "bad" ends it."""
    if looking.extractor == "unknown":
        pipe.send(Told("unknown extractor", fault=True))
        return
    pipe.send(Told("looking at photographs"))
    pipe.send(Told("", ready=True))
    try:
        while True:
            picture: Picture = pipe.recv()
            if picture.path.name == "bad":
                os._exit(1)
            pipe.send(Twin(picture.id, 7, False, "no copy"))
    except EOFError:
        return


def refuse(pipe: Connection, opening: Opening) -> None:
    """A worker that cannot open its model."""
    from taxadiffusion.web.worker import Refused

    pipe.send(Refused(f"{opening.model} holds no adapter.json", 4))
