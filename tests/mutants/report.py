"""The table: how many mutants of each module were noticed, the share with its interval, and the survivors with why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from tests.mutants.places import Mutant

WANTED = 0.9
_REASONS = Path(__file__).with_name("survivors.json")


def report(
    mutants: Sequence[Mutant], sizes: Mapping[str, int], known: Mapping[str, Mapping[str, Any]], console: Console
) -> int:
    """Print it; 0 where every mutant has its verdict, enough were noticed, and every survivor has its reason."""
    table = Table("module", "places", "mutants", "noticed", "survived", "not tested")
    for module, size in sizes.items():
        own = [known.get(mutant.key) for mutant in mutants if mutant.module == module]
        killed = sum(1 for found in own if found and found["killed"])
        missing = sum(1 for found in own if not found)
        counts = (size, len(own), killed, len(own) - killed - missing, missing)
        table.add_row(module, *map(str, counts))
    console.print(table)
    tested = [(mutant, known[mutant.key]) for mutant in mutants if mutant.key in known]
    if not tested:
        return 1
    killed = sum(found["killed"] for _, found in tested)
    interval = binomtest(killed, len(tested)).proportion_ci(0.95, method="exact")
    console.print(
        f"{killed} of {len(tested)} noticed: {killed / len(tested):.1%}, "
        f"95 % interval {interval.low:.1%} to {interval.high:.1%} (Clopper and Pearson); wanted {WANTED:.0%}"
    )
    reasons = {(r["module"], r["old"], r["new"]): r["why"] for r in json.loads(_REASONS.read_text())}
    unexplained = 0
    for mutant, found in tested:
        if not found["killed"]:
            why = reasons.get((mutant.module, mutant.old, mutant.new))
            unexplained += why is None
            place = f"{mutant.module}:{mutant.line} {mutant.operator}"
            lines = ("", place, f"- {mutant.old}", f"+ {mutant.new}", f"  {why or 'NO REASON GIVEN'}")
            console.print("\n".join(lines), markup=False, highlight=False)
    return 0 if len(tested) == len(mutants) and killed >= WANTED * len(tested) and not unexplained else 1
