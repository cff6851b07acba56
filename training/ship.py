"""Make an adapter ready to be shipped: float16 weights, and a card that says which photographs it learned from.

    python -m training.ship runs/butterflies --out src/taxadiffusion/weights/butterflies --photographs "TEXT"

Common names (names.csv) beside the adapter, or those that are shipped already, go along. Hashes in the card are
those of the new files. It is read back, and must draw with what was written.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save

from taxadiffusion.adapter import CARD, READ_ME, TAXONOMY, read_adapter
from taxadiffusion.errors import CheckpointError
from taxadiffusion.files import write_folder
from taxadiffusion.taxonomy import NAMES, names_beside
from training.command import run

SECTION = "## What it learned from"


def halved(path: Path) -> bytes:
    """The safetensors file with its metadata, every tensor in float16. Raises `CheckpointError` where one overflows."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).half() for name in file.keys()}  # noqa: SIM118 (no mapping)
        metadata = file.metadata()
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name} does not fit float16")
    return save(tensors, metadata)


def ship(adapter: Path, out: Path, photographs: str) -> int:
    """→ bytes written. `adapter`: its folder, or that of a run that has written one."""
    adapter = adapter if (adapter / CARD).is_file() else adapter / "adapter"
    card, _, _ = read_adapter(adapter)
    files = {name: halved(adapter / name) for name in card.files}
    card = card.model_copy(update={"files": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}})
    read_me = (adapter / READ_ME).read_text(encoding="utf-8").split(f"\n{SECTION}")[0].rstrip("\n")
    files[READ_ME] = f"{read_me}\n\n{SECTION}\n\n{photographs.strip()}\n".encode()
    files[CARD] = (card.model_dump_json(indent=1) + "\n").encode()
    files[TAXONOMY] = (adapter / TAXONOMY).read_bytes()
    if (names := names_beside(adapter) or names_beside(out)) is not None:
        files[NAMES] = names.read_bytes()
    write_folder(out, files)
    read_adapter(out)
    return sum(map(len, files.values()))


def command() -> None:
    args = arguments(sys.argv[1:])
    print(f"{ship(args.adapter, args.out, args.photographs) / 1e6:.1f} MB in {args.out}")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photographs", required=True, help="whose they are, and under which declared licence")
    return parser.parse_args(words)


if __name__ == "__main__":
    run(command)
