"""Put an adapter on a base that was pretrained further, so that `train --from` goes on from it instead of from nothing.

    python -m training.rebase src/taxadiffusion/weights/reef-fish --base work/base-128 --out work/reef-fish

Its weights were learnt beside those of another base: they are a start, no model. Shapes must be the same; the card
names the new base by its content, and keeps its past.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from taxadiffusion.adapter import CARD, read_adapter
from taxadiffusion.adapter.card import base_name
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.files import write_folder
from training.command import run


def rebase(adapter: Path, base: Path, out: Path) -> None:
    """Raises `CheckpointError` where either cannot be read."""
    card, _, _ = read_adapter(adapter)
    now = card.model_copy(update={"base": base_name(str(base)), "base_hash": Backbone.load(str(base)).content_hash})
    files = {path.name: path.read_bytes() for path in adapter.iterdir() if path.is_file()}
    write_folder(out, files | {CARD: (now.model_dump_json(indent=1) + "\n").encode()})
    read_adapter(out)


def command() -> None:
    args = arguments(sys.argv[1:])
    rebase(args.adapter, args.base, args.out)


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m training.rebase", description=__doc__)
    parser.add_argument("adapter", type=Path, help="its folder")
    parser.add_argument("--base", type=Path, required=True, help="the base that it shall belong to")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(command)
