"""Long work as a person follows it: moving on a terminal, lines now and then in a job's log."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

_T = TypeVar("_T")

SAY_EVERY_S = 60.0
"""Seconds between two lines that differ in their numbers alone."""


class Lines:
    """Words as lines: those of another kind at once, those that differ in numbers alone once in `SAY_EVERY_S`.

    Of several processes of one launch, which write into one log, the first alone tells.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said: dict[str, float] = {}
        self._silent = os.environ.get("RANK", "0") != "0"

    def __call__(self, words: str, kind: str = "") -> None:
        """kind: what the words are about; none: all of them but the numbers."""
        if self._silent:
            return
        kind, now = re.sub(r"\d[\d,.:]*", "#", kind or words), time.monotonic()
        if now - self._said.get(kind, float("-inf")) >= SAY_EVERY_S:
            self._said[kind] = now
            self._console.print(f"{time.strftime('%H:%M:%S')} {words}", markup=False, soft_wrap=True)


@contextmanager
def working() -> Iterator[Callable[[str], None]]:
    """On stderr: a context in which a function is told in words what is done now."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with console.status("starting") as status:
            yield status.update
    else:
        yield Lines(console)


class Shown(Protocol):
    """What is told of work whose parts are counted."""

    def say(self, words: str) -> None:
        """What is done now."""

    def count(self, what: str, done: int, total: int) -> None:
        """How many of how many are done, and what they are."""


class _Bar:
    def __init__(self, progress: Progress, words: str, total: int) -> None:
        self._progress, self._task = progress, progress.add_task(words, total=total)

    def say(self, words: str) -> None:
        self._progress.update(self._task, description=words)

    def count(self, what: str, done: int, total: int) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total)


class _Log:
    def __init__(self, console: Console) -> None:
        self._lines = Lines(console)
        self._began: tuple[int, float] | None = None

    def say(self, words: str) -> None:
        self._lines(words)

    def count(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        self._began = self._began or (done, now)  # what lay there already took no time
        already, since = self._began
        made = done - already
        left = f", about {timedelta(seconds=round((now - since) / made * (total - done)))} left" if made > 0 else ""
        self._lines(f"{what}: {done} of {total}{left}", kind=what)


@contextmanager
def moving(words: str, total: int) -> Iterator[Shown]:
    """On stderr: a bar with the time that is left."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield _Log(console)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        yield _Bar(progress, words, total)


@contextmanager
def parts() -> Iterator[Callable[[str, int, int], None]]:
    """On stderr: a context in which a function is told of each part how many of how many are done; a bar a part."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        logs: dict[str, _Log] = {}
        yield lambda what, done, total: logs.setdefault(what, _Log(console)).count(what, done, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        bars: dict[str, _Bar] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = _Bar(progress, what, total)
            bars[what].count(what, done, total)

        yield told


@contextmanager
def counted(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    """On stderr: a context in which a function is told how many of how many are done."""
    with moving(what, total) as bar:
        yield lambda done, now: bar.count(what, done, now)


def watched(items: Iterable[_T], what: str, total: int) -> list[_T]:
    """All of them, counted as they come."""
    found = []
    with counted(what, total) as told:
        for item in items:
            found.append(item)
            told(len(found), total)
    return found
