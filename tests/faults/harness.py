"""Cases, goals and forked children: import once, fork per case, kill at will."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from taxadiffusion.errors import TaxaDiffusionError


@dataclass(slots=True)
class Case:
    """One injected fault and what came of it."""

    goal: int
    id: str
    seed: int
    expected: str
    observed: str = ""
    passed: bool = False
    seconds: float = 0.0
    max_rss_mb: float = 0.0
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass
class Plan:
    """How much is run: the whole, or the subset that belongs to `make test`."""

    subset: bool
    soak_minutes: float
    seed: int = 0

    def few(self, whole: int, subset: int) -> int:
        """A number of cases."""
        return subset if self.subset else whole


class Recorder:
    """Collects the cases of one goal; a case that raises has failed and the goal goes on."""

    def __init__(self, goal: int, planned: int) -> None:
        self.goal = goal
        self.planned = planned
        self.cases: list[Case] = []
        self.skipped: list[str] = []

    @contextmanager
    def case(self, name: str, seed: int, expected: str) -> Iterator[Case]:
        """Runs the body; it calls `check` on the case, or raises `AssertionError`."""
        case = Case(self.goal, name, seed, expected)
        started = time.perf_counter()
        try:
            yield case
            case.passed = True
            case.observed = case.observed or "as expected"
        except (AssertionError, TaxaDiffusionError, OSError, ValueError, KeyError, RuntimeError) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            case.observed = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:600]
        case.seconds = round(time.perf_counter() - started, 4)
        usage = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        case.max_rss_mb = round(usage / 1024, 1)
        self.cases.append(case)

    def skip(self, name: str, reason: str) -> None:
        """A case that cannot be run here: it stays planned, so its goal does not pass."""
        self.skipped.append(f"{name}: {reason}")

    def summary(self) -> dict[str, Any]:
        run, good = len(self.cases), sum(case.passed for case in self.cases)
        return {
            "goal": self.goal,
            "planned": self.planned,
            "run": run,
            "passed": good == run == self.planned,
            "cases_passed": good,
            "skipped": self.skipped,
            "seconds": round(sum(case.seconds for case in self.cases), 1),
        }

    def records(self) -> list[dict[str, Any]]:
        return [asdict(case) for case in self.cases]


@dataclass(frozen=True, slots=True)
class Child:
    """A forked process that runs one function and leaves with its exit code; output goes to a file."""

    pid: int
    log: Path

    def wait(self, timeout_s: float = 60.0) -> int:
        """Exit code, or minus the number of the signal that ended it. After the timeout: killed, and an error."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"hung for {timeout_s} s: {self.output()[-300:]}")

    def kill(self, number: int = signal.SIGKILL) -> None:
        with suppress(ProcessLookupError):  # it had ended by itself
            os.kill(self.pid, number)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def fork(work: Callable[[], object], folder: Path) -> Child:
    """Run `work` in a forked child of its own session; a fault of ours becomes its exit code and message."""
    log = folder / f"child-{time.monotonic_ns()}.log"
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return Child(pid, log)
    code = 1
    try:
        os.setsid()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        work()
        code = 0
    except TaxaDiffusionError as error:
        os.write(2, f"error: {error}\n".encode())
        code = error.exit_code
    finally:  # a child must never return into its parent's code, whatever happened
        if code == 1:
            os.write(2, traceback.format_exc().encode())
        os._exit(code)


@contextmanager
def folder() -> Iterator[Path]:
    """An empty directory, gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def tree_hash(path: Path) -> str:
    """One hash of names and contents of everything below `path`."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        digest.update(str(file.relative_to(path)).encode())
        if file.is_file():
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def survivors(session: int) -> list[int]:
    """Processes that still belong to a session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found
