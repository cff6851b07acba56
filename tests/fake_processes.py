"""The processes beside the pages, without torch and photographs."""

from __future__ import annotations

import hashlib
import json
import os
import time
from multiprocessing.connection import Connection

import numpy as np

from taxadiffusion.pictures.png import save_picture
from taxadiffusion.web.ask import UNCONDITIONAL, Ask
from taxadiffusion.web.looking import Looking, Picture, Told, Twin
from taxadiffusion.web.worker import STOP, Drawn, Ended, Opening, Refused, Stepped
from tests.site_taxa import FACTS, IMAGE_PX, RANKS

LOST_SEED = 13
"""A picture of it is taken away before it is told of."""
_STEP_S = 0.01


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
    pipe.send(Refused(f"{opening.model} holds no adapter.json", 4))


def draw(pipe: Connection, opening: Opening) -> None:
    """A worker whose pictures have one colour each, and the recipes that a real one writes."""
    pipe.send(FACTS)
    try:
        while True:
            ask = pipe.recv()
            if isinstance(ask, Ask):
                pipe.send(_drawn(pipe, ask, opening))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return


def _drawn(pipe: Connection, ask: Ask, opening: Opening) -> Ended:
    for lineage, seed in ask.drawn:
        recipe = {rank: lineage.get(rank) or "" for rank in RANKS} | {
            "scientific_name": lineage.label, "seed": str(seed), "guidance_scale": f"{ask.guidance.scale:g}",
            "guidance_rank": ask.guidance.rank or UNCONDITIONAL, "num_steps": str(ask.steps),
            "towards": "" if ask.towards is None else str(ask.towards), "fraction": f"{ask.fraction:g}",
            "model_sha256": FACTS.sha256, "software": "test", "source_taxon_id": "",
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
        path = opening.store / f"fish-{seed}-{digest[:10]}.png"
        new = not path.is_file()
        for _ in range(ask.steps if new else 0):
            time.sleep(_STEP_S)
            pipe.send(Stepped())
            if pipe.poll() and pipe.recv() == STOP:
                return Ended(None)
        if new:
            colour = np.frombuffer(bytes.fromhex(digest[:6]), np.uint8)
            save_picture(np.tile(colour[:, None, None], (1, IMAGE_PX, IMAGE_PX)), path, recipe)
        if seed == LOST_SEED:
            path.unlink()
        pipe.send(Drawn(path, recipe, new))
    return Ended("")
