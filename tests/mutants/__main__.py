"""`python -m tests.mutants`: test a sample of mutants, write each verdict as it falls, and print the table.

Goes on where it was interrupted. A mutant that was noticed is not tested again while its module's text is the same; one
that survived is, since tests are what one then writes. Removing OUT begins anew.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: a fork has one thread only
os.environ["HF_HUB_OFFLINE"] = "1"

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from tests.mutants.guards import modules
from tests.mutants.judge import PACKAGE, PASSED, WorkingCopy
from tests.mutants.named import named_mutants
from tests.mutants.places import Mutant, sample
from tests.mutants.report import report

PROJECT = Path(__file__).resolve().parents[2]
console = Console()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "build" / "mutants", help="verdicts, a line each")
    parser.add_argument("--number", type=int, default=300)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=["*"], help="test mutants of these modules alone, e.g. metrics/*")
    parser.add_argument("--report", action="store_true", help="print the table of the verdicts there are")
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    verdicts = chosen.out / "verdicts.jsonl"
    package = PROJECT / PACKAGE
    named = list(named_mutants(package))
    mutants, sizes = sample({m: (package / m).read_text() for m in modules(package)}, chosen.number, chosen.seed)
    known = _read(verdicts)
    if not chosen.report:
        wanted = [
            mutant
            for mutant in [*mutants, *named]
            if any(fnmatch(mutant.module, pattern) for pattern in chosen.only)
            and not known.get(mutant.key, {}).get("killed")
        ]
        with verdicts.open("a") as file:
            for found in _verdicts(wanted):
                known[found["key"]] = found
                file.write(json.dumps(found, ensure_ascii=False) + "\n")
                file.flush()
    return report(mutants, named, sizes, known, console)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    lines = path.read_text().splitlines() if path.exists() else []
    return {found["key"]: found for found in map(json.loads, lines)}


def _verdicts(wanted: list[Mutant]) -> Iterator[dict[str, Any]]:
    unchanged_s: dict[tuple[str, ...], float] = {}
    with tempfile.TemporaryDirectory(prefix="mutants-") as place:
        copy = WorkingCopy(PROJECT, Path(place))
        for mutant in track(wanted, "mutants", console=console):
            tests = mutant.tests
            if tests not in unchanged_s:
                plain = copy.test(mutant.module, copy.source(mutant.module), tests)
                if plain.exit_code != PASSED:
                    console.print(plain.output, markup=False)
                    sys.exit(f"the tests of {mutant.module} do not pass as they are: {' '.join(tests)}")
                unchanged_s[tests] = plain.cpu_s
                copy.import_what_was_imported()
                console.print(f"{' '.join(tests)}: {plain.cpu_s:.1f} s", markup=False, highlight=False)
            verdict = copy.test(mutant.module, mutant.source, tests, unchanged_s[tests])
            if not verdict.killed and verdict.exit_code != PASSED:
                console.print(verdict.output, markup=False)
                sys.exit(f"pytest ended with {verdict.exit_code} on {mutant.module}: {mutant.old} → {mutant.new}")
            if not verdict.killed:
                console.print(f"survived: {mutant.module}:{mutant.line}  {mutant.old}  →  {mutant.new}", markup=False)
            yield {
                "key": mutant.key,
                "module": mutant.module,
                "line": mutant.line,
                "operator": mutant.operator,
                "old": mutant.old,
                "new": mutant.new,
                "killed": verdict.killed,
                "exit_code": verdict.exit_code,
                "cpu_s": round(verdict.cpu_s, 2),
                "noticed_by": [line for line in verdict.output.split("\n") if line.startswith(("FAILED", "ERROR"))][:1],
            }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on")
        sys.exit(130)
