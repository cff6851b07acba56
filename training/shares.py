"""How near generated pictures come to photographs: shares named right over the same taxa; the rarest, and the others.

    python -m training.shares evaluation/results.json --rank species --rarest 10

Reads what `evaluate` wrote. Taxa that judges do not know, or of which there is no photograph to hold against, are left
out of both sides and counted. Intervals are those of an evaluation: over taxa, for this model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from taxadiffusion.errors import DataError
from taxadiffusion.metrics.intervals import Interval, mean_of_means
from training.command import run

REAL = "real_test_photographs"
JUDGES = ("named_right", "named_right_second")


def shares(
    generated: Sequence[dict[str, Any]], real: Sequence[dict[str, Any]], judge: str, which: slice = slice(None)
) -> tuple[Interval, Interval, int]:
    """Of generated pictures and of photographs, and over how many taxa; which: of those by number of photographs.

    Raises `DataError` where there is none.
    """
    photographs = {taxon["label"]: taxon for taxon in real if taxon[judge] is not None}
    mine = [taxon for taxon in generated if taxon[judge] is not None and taxon["label"] in photographs]
    mine = sorted(mine, key=lambda taxon: (taxon["num_photographs"], taxon["label"]))[which]
    if not mine:
        raise DataError("no taxon was named on both sides")
    sides = mine, [photographs[taxon["label"]] for taxon in mine]
    ours, theirs = (
        mean_of_means(
            np.array([[taxon[judge]] for taxon in side]), sum(taxon["num_images"] for taxon in side), share=True
        )
        for side in sides
    )
    return ours, theirs, len(mine)


def lines(results: dict[str, Any], rank: str, rarest: int) -> list[str]:
    """Lines for each judge: all taxa, the rarest, the others. Raises `DataError` for other than one model, or rank."""
    details, found = results["details"], []
    methods = [name for name in details if name != REAL]
    if len(methods) != 1:
        raise DataError(f"evaluate one model, not {len(methods)}: {', '.join(methods)}")
    if rank not in details[methods[0]]:
        raise DataError(f"--rank {rank}: was not evaluated; there are {', '.join(details[methods[0]])}")
    generated, real = (details[side][rank]["taxa"] for side in (methods[0], REAL))
    judges = [judge for judge in JUDGES if any(taxon.get(judge) is not None for taxon in generated)]
    for judge in judges:
        parts = {"all": slice(None), f"{rarest} rarest": slice(rarest)}
        if shares(generated, real, judge)[2] > rarest:
            parts["the others"] = slice(rarest, None)
        for words, which in parts.items():
            ours, theirs, num_taxa = shares(generated, real, judge, which)
            share = f"{ours.mean / theirs.mean:.2f}" if theirs.mean else "–"
            found.append(
                f"{judge}  {rank}, {words}  generated {ours.mean:.3f} ({ours.low:.3f} to {ours.high:.3f})  photographs "
                f"{theirs.mean:.3f} ({theirs.low:.3f} to {theirs.high:.3f})  {share} of it, "
                f"{num_taxa} of {len(generated)} taxa"
            )
    return found


def command() -> None:
    args = arguments(sys.argv[1:])
    print("\n".join(lines(json.loads(args.results.read_text(encoding="utf-8")), args.rank, args.rarest)))


def number_of_taxa(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: one taxon or more")
    return number


def arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json that evaluate wrote of one model")
    parser.add_argument("--rank", default="species")
    parser.add_argument(
        "--rarest", type=number_of_taxa, default=10, help="how many taxa of the fewest photographs stand apart"
    )
    return parser.parse_args(words)


if __name__ == "__main__":
    run(command)
