"""A job in the queue as those who wait for it see it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

from taxadiffusion.errors import TaxaDiffusionError
from taxadiffusion.web.ask import Ask

State = Literal["waiting", "drawing", "done", "failed", "cancelled"]
OPEN: tuple[State, ...] = ("waiting", "drawing")


class BusyError(TaxaDiffusionError):
    """The queue is full, or the visitor has enough in it."""


@dataclass(eq=False)
class Job:
    """Changed by the workshop alone, under its lock."""

    number: int
    client: str
    ask: Ask
    state: State = "waiting"
    message: str = ""
    pictures: list[str] = field(default_factory=list)
    """Ids in the store, in the order of their coming."""
    num_steps_done: int = 0
    begun: float = 0.0
    stop_asked: bool = False

    @property
    def num_asked(self) -> int:
        return len(self.ask.drawn)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def fraction(self) -> float:
        """Of its steps that are done, 0 … 1."""
        if self.state == "done":
            return 1.0
        return min(1.0, self.num_steps_done / max(1, self.num_asked * self.ask.steps))

    @property
    def seconds_left(self) -> float | None:
        """At the rate so far; None before there is one."""
        if self.state != "drawing" or self.num_steps_done < 2:
            return None
        return (time.monotonic() - self.begun) * (1 - self.fraction) / self.fraction


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one moment. place: how many are before it in the queue, where it waits."""

    number: int
    state: State
    place: int | None
    fraction: float
    seconds_left: float | None
    num_asked: int
    pictures: tuple[str, ...]
    message: str

    @property
    def words(self) -> str:
        """What a screen reader says of it."""
        if self.state == "waiting":
            before = "next in the queue" if not self.place else f"{self.place} before it in the queue"
            return f"Waiting: {before}."
        if self.state == "drawing":
            left = "" if self.seconds_left is None else f", about {max(1, round(self.seconds_left))} s left"
            return f"Drawing: {len(self.pictures)} of {self.num_asked} pictures, {self.fraction:.0%}{left}."
        if self.state == "done":
            return f"Done: {len(self.pictures)} of {self.num_asked} pictures."
        kept = f" {len(self.pictures)} of {self.num_asked} pictures were drawn and are kept." if self.pictures else ""
        return (
            {"failed": "Failed: ", "cancelled": "Cancelled"}[self.state]
            + self.message
            + "." * (not self.message.endswith((".", "!", "?")))
            + kept
        )
