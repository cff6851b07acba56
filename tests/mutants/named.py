"""Changes that were once made by hand because results hang on them, beside what the operators think of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tests.mutants.places import Mutant

_FILE = Path(__file__).with_suffix(".json")


def named_mutants(package: Path) -> Iterator[Mutant]:
    """Each with the tests that should notice. Raises `ValueError` for a text that its module does not hold once."""
    for change in json.loads(_FILE.read_text()):
        source = (package / change["module"]).read_text()
        if source.count(change["old"]) != 1:
            raise ValueError(
                f"named.json: {change['module']} does not hold {change['old']!r} once: bring it up to date"
            )
        line = source[: source.index(change["old"])].count("\n") + 1
        changed = source.replace(change["old"], change["new"])
        yield Mutant(change["module"], line, "named", change["old"], change["new"], changed, tuple(change["tests"]))
