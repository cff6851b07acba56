"""Results of long work on a data set's photographs, a line each: an interrupted run goes on after the last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from taxadiffusion.errors import DataError, SettingsError


class Journal:
    """JSON lines: first what the results are of, then one for each photograph, by its row in the data set."""

    def __init__(self, path: Path, head: Mapping[str, str]) -> None:
        """Reads what is there. Raises `SettingsError` where it is of something else, `DataError` where it is no journal
        or cannot be written. A last line that was cut short is written anew."""
        self.path = path
        self.rows: dict[int, dict[str, Any]] = {}
        head_line = json.dumps(dict(head), sort_keys=True)
        lines = self._lines()
        if lines:
            self._require(json.loads(lines[0]), dict(head))
            for number, line in enumerate(lines[1:], 2):
                entry = json.loads(line)
                if not isinstance(entry, dict) or not isinstance(entry.get("row"), int):
                    raise DataError(f"{path} line {number}: is no result; delete the file and it is made anew")
                self.rows[entry["row"]] = entry
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(f"{line}\n" for line in lines or [head_line]), encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: cannot be written: {error.strerror}") from error

    def _lines(self) -> list[str]:
        if not self.path.is_file():
            return []
        lines = self.path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows the last end of line was cut
        try:
            for line in lines:
                json.loads(line)
        except ValueError as error:
            raise DataError(f"{self.path}: is not JSON lines ({error}); delete it and it is made anew") from error
        return lines

    def _require(self, there: Any, now: dict[str, str]) -> None:
        if there == now:
            return
        known = there if isinstance(there, dict) else {}
        differing = [f"{key}: {known.get(key)} there, {now.get(key)} now" for key in sorted({*known, *now})
                     if known.get(key) != now.get(key)]  # fmt: skip
        raise SettingsError(
            f"{self.path}: its results are of something else ({'; '.join(differing)}); name another file, or delete it"
        )

    def add(self, row: int, entry: Mapping[str, Any]) -> None:
        """On the disk before the next photograph is looked at."""
        self.rows[row] = {"row": row, **entry}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(self.rows[row]) + "\n")
