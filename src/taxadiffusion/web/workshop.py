"""The queue, and the thread that hands its jobs to the worker; a worker that dies is told of and replaced."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections import OrderedDict
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from taxadiffusion.errors import CheckpointError, DataError, SettingsError, TaxaDiffusionError
from taxadiffusion.web.ask import Ask
from taxadiffusion.web.jobs import BusyError, Job, JobView
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.served import ModelFacts
from taxadiffusion.web.store import Store
from taxadiffusion.web.worker import STOP, Drawn, Ended, Opening, Refused, Stepped, work

_POLL_S = 0.2
_PATIENCE_S = 30.0
"""After a stop was asked for: a step may take long."""
_START_S = 600.0
_FEWEST_S = 5.0
"""Between two starts of a worker."""
_FAULTS = {error.exit_code: error for error in (SettingsError, DataError, CheckpointError)}


class _DiedError(Exception):
    """The worker is gone, with its exit code."""


class Workshop:
    """Jobs in, pictures in the store out, one job at a time. Every method may be called from any thread."""

    def __init__(self, opening: Opening, limits: Limits) -> None:
        self._opening, self._limits = opening, limits
        self._jobs: OrderedDict[int, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._closing = False
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._begun = -_FEWEST_S
        self._store: Store | None = None
        self._thread = threading.Thread(target=self._run, name="workshop", daemon=True)

    def open(self) -> ModelFacts:
        """Start the worker and wait for its model. Raises what `open_model` raises."""
        return self._start()

    def begin(self, store: Store) -> None:
        """Draw what is asked for from now on."""
        self._store = store
        self._thread.start()

    def close(self) -> None:
        """End the worker; what it has drawn is kept."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(_PATIENCE_S)
        self._end()

    @property
    def worker_pid(self) -> int | None:
        """Of the process that draws."""
        return self._process.pid if self._process is not None else None

    # the queue

    def submit(self, client: str, ask: Ask) -> JobView:
        """A new job, or the finished one that was the same. Raises `BusyError` where there is no room."""
        assert self._store is not None, "begun"
        with self._changed:
            for job in reversed(self._jobs.values()):
                if job.ask == ask and job.state == "done" and all(map(self._store.get, job.pictures)):
                    return self._view(job)
            in_queue = [job for job in self._jobs.values() if job.is_open]
            if len(in_queue) >= self._limits.queue:
                raise BusyError(f"the queue is full ({len(in_queue)} jobs); try again in a minute")
            if sum(job.client == client for job in in_queue) >= self._limits.per_client:
                raise BusyError(f"you have {self._limits.per_client} jobs in the queue; wait for one, or cancel one")
            job = Job(max(self._jobs, default=0) + 1, client, ask)
            self._jobs[job.number] = job
            closed = [number for number, old in self._jobs.items() if not old.is_open]
            for number in closed[: max(0, len(closed) - self._limits.jobs_kept)]:
                del self._jobs[number]
            self._changed.notify_all()
            return self._view(job)

    def cancel(self, number: int, client: str) -> bool:
        """Whether there is such a job of this client; one that is over stays as it is."""
        with self._changed:
            job = self._jobs.get(number)
            if job is None or job.client != client:
                return False
            if job.state == "waiting":
                job.state = "cancelled"
            job.stop_asked = True
            return True

    def view(self, number: int) -> JobView | None:
        """The job as it is now."""
        with self._changed:
            job = self._jobs.get(number)
            return None if job is None else self._view(job)

    def ask(self, number: int) -> Ask:
        """What a job that `view` knows asks for."""
        return self._jobs[number].ask

    def is_of(self, number: int, client: str) -> bool:
        """Whether the job is this client's."""
        job = self._jobs.get(number)
        return job is not None and job.client == client

    def _view(self, job: Job) -> JobView:
        before = sum(other.is_open for other in self._jobs.values() if other.number < job.number)
        return JobView(
            job.number,
            job.state,
            before if job.state == "waiting" else None,
            job.fraction,
            job.seconds_left,
            job.num_asked,
            tuple(job.pictures),
            job.message,
        )

    # the thread

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._draw(job)
            except _DiedError as died:
                self._end()
                self._over(job, "failed", f"the process that draws was lost ({died}); another one goes on. Ask again")
            except TaxaDiffusionError as error:
                self._over(job, "failed", str(error))
            except OSError as error:  # the thread goes on, whatever becomes of the folder
                self._end()
                self._over(job, "failed", f"{self._opening.store}: the pictures cannot be kept: {error.strerror}")
            assert self._store is not None, "begun"
            self._store.shrink(frozenset(job.pictures))

    def _next(self) -> Job | None:
        """The job that has waited longest; None when all is to end. A worker that died in the meantime is replaced."""
        while not self._closing:
            with self._changed:
                job = next((job for job in self._jobs.values() if job.state == "waiting"), None)
                if job is not None:
                    job.state, job.begun = "drawing", time.monotonic()
                    return job
                self._changed.wait(_POLL_S)
            if self._process is not None and not self._process.is_alive():
                self._end()
        return None

    def _draw(self, job: Job) -> None:
        if self._process is None or not self._process.is_alive():
            self._end()
            self._start()
        assert self._pipe is not None, "started"
        self._send(job.ask)
        deadline, stopped_at = time.monotonic() + self._limits.seconds, None
        while True:
            now = time.monotonic()
            if stopped_at is None and (job.stop_asked or now > deadline or self._closing):
                stopped_at = now
                self._send(STOP)
            if stopped_at is not None and now > stopped_at + _PATIENCE_S:
                self._end()
                break
            word = self._word(_POLL_S)
            if isinstance(word, Ended):
                if word.fault is not None:
                    self._over(job, "failed" if word.fault else "done", word.fault)
                    return
                break
            self._noted(job, word)
        late = not job.stop_asked
        why = f"it took longer than {self._limits.seconds:g} s" if late else ""
        self._over(job, "failed" if late else "cancelled", why)

    def _noted(self, job: Job, word: object) -> None:
        assert self._store is not None, "begun"
        with self._changed:
            if isinstance(word, Stepped):
                job.num_steps_done += 1
            elif isinstance(word, Drawn) and (picture := self._store.add(word.path, word.recipe)):
                job.pictures.append(picture)
                if not word.new:
                    job.num_steps_done += job.ask.steps

    def _over(self, job: Job, state: str, message: str) -> None:
        with self._changed:
            job.state, job.message = ("done" if state == "done" else state), message  # type: ignore[assignment]
            self._changed.notify_all()

    # the process

    def _start(self) -> ModelFacts:
        """Raises `_DiedError`, or what the model's opening raised."""
        time.sleep(max(0.0, min(_FEWEST_S, self._begun + _FEWEST_S - time.monotonic())))
        self._begun = time.monotonic()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=work, args=(theirs, self._opening), name="worker", daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        while not self._closing and time.monotonic() < self._begun + _START_S:
            try:
                word = self._word(_POLL_S)
            except _DiedError as died:
                raise CheckpointError(f"the process that draws could not start ({died})") from None
            if isinstance(word, ModelFacts):
                return word
            if isinstance(word, Refused):
                self._end()
                raise _FAULTS.get(word.exit_code, CheckpointError)(word.message)
        raise CheckpointError("the process that draws did not start in time")

    def _send(self, word: object) -> None:
        assert self._pipe is not None, "started"
        try:
            self._pipe.send(word)
        except OSError:
            raise _DiedError(self._why_gone()) from None

    def _word(self, patience_s: float) -> object:
        """What the worker says, None where it says nothing for so long."""
        assert self._pipe is not None, "started"
        try:
            return self._pipe.recv() if self._pipe.poll(patience_s) else None
        except (EOFError, OSError):
            raise _DiedError(self._why_gone()) from None

    def _why_gone(self) -> str:
        assert self._process is not None, "started"
        self._process.join(1.0)
        code = self._process.exitcode
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _end(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.join(1.0)
            if self._process.is_alive():
                self._process.kill()
                self._process.join()
        self._process = self._pipe = None
