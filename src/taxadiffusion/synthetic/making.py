"""Pictures made in rounds until each species has what is wanted: resumable, and shared among processes.

A round is a list of requests that follows from what the rounds before it gave, so every process, and every later call,
makes the same ones. The first process judges and writes the next round's list; the others wait for it.
"""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from taxadiffusion import files
from taxadiffusion.adapter import Adapter
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import DataError, NonFiniteError, SettingsError
from taxadiffusion.evaluate.image_plan import picture_seed
from taxadiffusion.guidance import Context, Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.generate import ALONE, Generated, Sampling, generate
from taxadiffusion.request import Mix, conditions_of
from taxadiffusion.sampler import Request, Sampler
from taxadiffusion.synthetic.accept import NOT_NEEDED
from taxadiffusion.synthetic.contexts import drawn_context
from taxadiffusion.synthetic.plan import Plan

CANDIDATES = "candidates"
"""The folder, within a synthetic set's, of every picture that was drawn, accepted or not."""
IDENTITY = "asked.json"

_ROUNDS, _DONE, _LOCK = "rounds", "done.json", "rounds/lock"
_POLL_S = 0.5
_PATIENCE_S = 600.0  # processes of one launch may start this far apart
_TIMED_STEPS = 2


@dataclass(frozen=True, slots=True)
class Making:
    """How pictures are drawn. tries: at most so many for each that is wanted. contexts: each has one of these."""

    tries: int = 5
    seed: int = 0
    guidance: Guidance = Guidance()  # noqa: RUF009  (frozen)
    sampling: Sampling = Sampling()  # noqa: RUF009  (frozen)
    contexts: tuple[Context, ...] = ()

    def request(self, taxon: Lineage, seed: int) -> Request:
        """The picture of this seed."""
        return Request(taxon, seed, self.guidance, context=drawn_context(self.contexts, seed))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that was drawn, and why it was refused; None: it is accepted."""

    taxon: Lineage
    number: int
    """Of its species: 0, 1, …"""
    path: Path
    reason: str | None = None


Judge = Callable[[Sequence[Candidate]], Sequence[str | None]]
"""The reason against each new picture, in order; None: it passes."""
Drawn = Callable[[int, int, int], None]
"""Told of pictures drawn, accepted and wanted."""


def seconds_a_picture(adapter: Adapter, plan: Plan, making: Making) -> float:
    """What drawing takes here, from a batch of `_TIMED_STEPS` steps: steps are most of it."""
    sampling = making.sampling
    taxa = [one.taxon for one in plan.wanted if one.pictures]
    asked = [making.request(taxa[i % len(taxa)], i) for i in range(min(sampling.batch_size, plan.total))]
    sampler = Sampler(
        adapter.denoiser, scheduler=sampling.scheduler, size_px=adapter.card.image_size_px, engine=sampling.engine
    )
    steps = min(_TIMED_STEPS, sampling.num_steps)
    started = time.perf_counter()
    with suppress(NonFiniteError):  # after two steps a picture may still be blank; the time is what it is
        list(sampler(asked, num_steps=steps, batch_size=sampling.batch_size))
    return (time.perf_counter() - started) / steps * sampling.num_steps / len(asked)


class Maker:
    """The rounds of one plan in one folder."""

    def __init__(
        self,
        adapter: Adapter,
        plan: Plan,
        making: Making,
        out: Path,
        accepted_by: Mapping[str, Any],
        shard: Shard = ALONE,
    ) -> None:
        """accepted_by: what decides acceptance, in plain values; rounds hang on it. Raises `SettingsError` where `out`
        holds the rounds of another plan, model or acceptance, or the model cannot be given one of the contexts."""
        taken = [Mix(Lineage(), caption=one.caption) for one in making.contexts]
        conditions_of(adapter.denoiser.conditioner, [Mix(Lineage()), *taken], {})  # not after hours of drawing
        self._adapter, self._plan, self._making, self._out, self._shard = adapter, plan, making, out, shard
        self._taxa = [one.taxon for one in plan.wanted]
        guidance, sampling = making.guidance, making.sampling
        self._identity = {
            "plan": plan.content_hash,
            "model_sha256": adapter.card.content_hash,
            "tries": making.tries,
            "seed": making.seed,
            "guidance": [guidance.scale, guidance.rank, *guidance.interval],
            "sampling": [sampling.num_steps, sampling.batch_size, sampling.scheduler],
            "contexts": [[one.caption, one.scale] for one in making.contexts] or None,
            "accepted_by": dict(accepted_by),
        }
        _require_same(out / IDENTITY, self._identity)

    def make(self, judge: Judge, told: Drawn = lambda *_: None) -> list[Candidate]:
        """Of the first process: draw and judge until nothing is missing or the tries are used up; every candidate.

        Raises `DataError` where another first process is at work in the folder.
        """
        (self._out / _ROUNDS).mkdir(parents=True, exist_ok=True)
        _write_json(self._out / IDENTITY, self._identity)
        with (self._out / _LOCK).open("w") as lock:
            if not files.locked(lock.fileno()):
                raise DataError(f"{self._out}: another process makes this set; wait for it or stop it")
            found: list[Candidate] = []
            number = 0
            while asked := self._asked(found):
                _write_json(self._out / _ROUNDS / f"{number:04d}.json", {"asked": asked})
                found += self._judged(self._drawn(asked, found, told), found, judge)
                told(len(found), sum(one.reason is None for one in found), self._plan.total)
                number += 1
            _write_json(self._out / _DONE, {"rounds": number})
        return found

    def follow(self) -> None:
        """Of any other process: its share of each round, until the first process has no further one or is gone."""
        number = 0
        while self._awaited(number):
            document = json.loads((self._out / _ROUNDS / f"{number:04d}.json").read_text(encoding="utf-8"))
            for _ in self._generated(document["asked"]):
                pass
            number += 1

    def _awaited(self, number: int) -> bool:
        """Whether there is a round of this number, as soon as that is known."""
        path, patience = self._out / _ROUNDS / f"{number:04d}.json", time.monotonic() + _PATIENCE_S
        while not path.is_file():
            done = self._out / _DONE
            if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["rounds"] <= number:
                return False
            if time.monotonic() > patience:
                if not self._first_is_at_work():
                    raise DataError(f"{self._out}: process 0 of this run is not at work; start all processes again")
                patience = time.monotonic() + _PATIENCE_S
            time.sleep(_POLL_S)
        _require_same(self._out / IDENTITY, self._identity)
        return True

    def _first_is_at_work(self) -> bool:
        try:
            with (self._out / _LOCK).open("a") as lock:
                return not files.locked(lock.fileno(), shared=True)
        except FileNotFoundError:
            return False

    def _asked(self, found: Sequence[Candidate]) -> list[list[int]]:
        """The next round: [species, first number, number after the last], [] when nothing more is to be drawn.

        The first round draws what is wanted; a later one what is missing, at the rate of acceptance so far.
        """
        drawn = Counter(one.taxon for one in found)
        accepted = Counter(one.taxon for one in found if one.reason is None)
        asked = []
        for i, one in enumerate(self._plan.wanted):
            before = drawn[one.taxon]
            missing, left = one.pictures - accepted[one.taxon], self._making.tries * one.pictures - before
            if missing > 0 and left > 0:
                need = math.ceil(missing * (before + 1) / (accepted[one.taxon] + 1)) if before else missing
                asked.append([i, before, before + min(left, need)])
        return asked

    def _requests(self, asked: Sequence[Sequence[int]]) -> list[tuple[int, Request]]:
        making = self._making
        return [
            (k, making.request(self._taxa[i], picture_seed(making.seed, self._taxa[i], k)))
            for i, first, stop in asked
            for k in range(first, stop)
        ]

    def _generated(self, asked: Sequence[Sequence[int]]) -> Iterator[Generated]:
        requests = [request for _, request in self._requests(asked)]
        return generate(self._adapter, requests, self._out / CANDIDATES, self._making.sampling, self._shard)

    def _drawn(self, asked: Sequence[Sequence[int]], found: Sequence[Candidate], told: Drawn) -> list[Candidate]:
        accepted = sum(one.reason is None for one in found)
        paths = {}
        for done, picture in enumerate(self._generated(asked), len(found) + 1):
            paths[picture.request] = picture.path
            told(done, accepted, self._plan.total)
        return [Candidate(request.lineage, k, paths[request]) for k, request in self._requests(asked)]

    def _judged(self, new: Sequence[Candidate], found: Sequence[Candidate], judge: Judge) -> list[Candidate]:
        missing = {one.taxon: one.pictures for one in self._plan.wanted}
        for one in found:
            missing[one.taxon] -= one.reason is None
        judged = []
        for one, reason in zip(new, judge(new), strict=True):
            if reason is None and not missing[one.taxon]:
                reason = NOT_NEEDED
            missing[one.taxon] -= reason is None
            judged.append(Candidate(one.taxon, one.number, one.path, reason))
        return judged


def _require_same(path: Path, identity: Mapping[str, Any]) -> None:
    if not path.is_file():
        return
    there = json.loads(path.read_text(encoding="utf-8"))
    differing = [key for key in identity if there.get(key) != json.loads(json.dumps(identity[key]))]
    if differing:
        raise SettingsError(
            f"{path.parent}: holds a set that was asked for otherwise ({', '.join(differing)} differ); give another "
            "--out, or the options of that set to go on with it"
        )


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    with files.whole(path) as aside:
        aside.write_text(json.dumps(document, ensure_ascii=False) + "\n", encoding="utf-8")
