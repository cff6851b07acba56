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
    mutants: Sequence[Mutant],
    named: Sequence[Mutant],
    sizes: Mapping[str, int],
    known: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> int:
    """Print it; 0 where every mutant has its verdict, enough of the sample and all named ones were noticed, and every
    survivor has its reason."""
    table = Table("module", "places", "mutants", "noticed", "survived", "not tested")
    for module, size in sizes.items():
        table.add_row(module, str(size), *map(str, _counts([m for m in mutants if m.module == module], known)))
    table.add_section()
    number, killed, survived, missing = _counts(mutants, known)
    table.add_row("all", str(sum(sizes.values())), *map(str, (number, killed, survived, missing)))
    console.print(table)
    tested = number - missing
    if not tested:
        return 1
    interval = binomtest(killed, tested).proportion_ci(0.95, method="exact")
    console.print(
        f"{killed} of {tested} noticed: {killed / tested:.1%}, 95 % interval {interval.low:.1%} to {interval.high:.1%} "
        f"(Clopper and Pearson); wanted {WANTED:.0%}",
        soft_wrap=True,
    )
    _, named_killed, _, named_missing = _counts(named, known)
    console.print(f"named changes: {named_killed} of {len(named)} noticed, {named_missing} not tested")
    unexplained = _survivors([*mutants, *named], known, console)
    good = missing == 0 and killed >= WANTED * tested and named_killed == len(named) and not unexplained
    return 0 if good else 1


def _counts(mutants: Sequence[Mutant], known: Mapping[str, Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """Mutants, and how many of them were noticed, survived, were not tested."""
    found = [known.get(mutant.key) for mutant in mutants]
    killed = sum(1 for verdict in found if verdict and verdict["killed"])
    missing = found.count(None)
    return len(found), killed, len(found) - killed - missing, missing


def _survivors(mutants: Sequence[Mutant], known: Mapping[str, Mapping[str, Any]], console: Console) -> int:
    """Print each with the reason why it may; returns how many have none."""
    reasons = {(r["module"], r["old"], r["new"]): r["why"] for r in json.loads(_REASONS.read_text())}
    unexplained = 0
    for mutant in mutants:
        if not known.get(mutant.key, {"killed": True})["killed"]:
            why = reasons.get((mutant.module, mutant.old, mutant.new))
            unexplained += why is None
            place = f"{mutant.module}:{mutant.line} {mutant.operator}"
            lines = ("", place, f"- {mutant.old}", f"+ {mutant.new}", f"  {why or 'NO REASON GIVEN'}")
            console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    return unexplained
