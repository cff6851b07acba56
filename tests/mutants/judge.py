"""A working copy of the project, and what its tests say with a module changed there.

Importing torch and diffusers takes longer than most tests: this process imports them once, and each mutant is tested by
a fork of it. The package under test and its tests are never imported here, so every fork reads them anew.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import hypothesis  # noqa: F401 — with pytest, so that no fork has to
import pytest

PACKAGE = "src/taxadiffusion"
_SPARE_S = 20  # processor time beyond the multiple of what the unchanged tests take
_MULTIPLE = 3
_MAX_WALL_S = 1800.0
_MAX_MEMORY = 8 << 30

PASSED, FAILED, INTERRUPTED = 0, 1, 2
TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Verdict:
    """exit_code: pytest's, or the negative number of the signal that ended it."""

    exit_code: int
    cpu_s: float
    output: str

    @property
    def killed(self) -> bool:
        """Whether the tests noticed: one failed, none could be collected, or they did not end in time."""
        return self.exit_code in (FAILED, INTERRUPTED) or self.exit_code < 0


class WorkingCopy:
    """The project's source and tests in `place`; all else is linked. Removes what lay there."""

    def __init__(self, project: Path, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        self.root = place / "project"
        self.root.mkdir(parents=True)
        self._log, self._scratch = place / "log", place / "scratch"
        for entry in project.iterdir():
            if entry.name not in ("src", "tests") and not entry.name.startswith("."):
                (self.root / entry.name).symlink_to(entry)
        kept_out = shutil.ignore_patterns("__pycache__", "weights", "*.egg-info")
        for name in ("src", "tests"):
            shutil.copytree(project / name, self.root / name, ignore=kept_out)
        (self.root / PACKAGE / "weights").symlink_to(project / PACKAGE / "weights")
        if (project.parent / "shared").exists():
            (place / "shared").symlink_to((project.parent / "shared").resolve())

    def source(self, module: str) -> str:
        return (self.root / PACKAGE / module).read_text()

    def test(self, module: str, source: str, tests: Sequence[str], cpu_s: float | None = None) -> Verdict:
        """Run `tests` with `source` in place of the module's own text, which then stands there again.

        cpu_s: what they take with the unchanged source; beyond a multiple of it they are ended.
        """
        path = self.root / PACKAGE / module
        own = path.read_text()
        path.write_text(source)
        try:
            return self._run(tests, _MULTIPLE * cpu_s + _SPARE_S if cpu_s is not None else None)
        finally:
            path.write_text(own)

    def _run(self, tests: Sequence[str], limit_s: float | None) -> Verdict:
        shutil.rmtree(self._scratch, ignore_errors=True)
        child = os.fork()
        if not child:
            self._be_the_tests(tests, limit_s)
        deadline = time.monotonic() + _MAX_WALL_S
        while not (ended := os.wait4(child, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                _end(child, signal.SIGKILL)
            time.sleep(0.05)
        _end(child, signal.SIGKILL)  # what the tests started and left behind
        _, status, used = ended
        text = self._log.read_text(errors="replace")
        return Verdict(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, text)

    def _be_the_tests(self, tests: Sequence[str], limit_s: float | None) -> None:
        """In the forked process; does not return."""
        code = 70
        try:
            os.setsid()
            log = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.root)
            resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY, _MAX_MEMORY))
            if limit_s is not None:
                resource.setrlimit(resource.RLIMIT_CPU, (int(limit_s) + 1, int(limit_s) + 6))
            os.environ["PYTHONPATH"] = str(self.root / "src")
            sys.path[:0] = [str(self.root / "src")]
            sys.dont_write_bytecode = True  # two mutants of one size in one second would share what was compiled
            for name in [name for name in sys.modules if name == "tests" or name.startswith("tests.")]:
                del sys.modules[name]
            scratch = ["--basetemp", str(self._scratch), "-p", "no:cacheprovider"]
            code = int(
                pytest.main(["-x", "-q", "--no-header", "--durations=0", "--hypothesis-seed=0", *scratch, *tests])
            )
            found = Path(sys.modules["taxadiffusion"].__file__ or "") if "taxadiffusion" in sys.modules else self.root
            if not found.is_relative_to(self.root):
                print(f"the tests read {found}, not the working copy")
                code = 70
            elsewhere = [name for name, module in list(sys.modules.items()) if not self._holds(module)]
            self._log.with_name("imported").write_text("\n".join(elsewhere))
        except BaseException:  # noqa: BLE001 — whatever it was, this process must not go on as its parent
            traceback.print_exc()
            code = 70
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _holds(self, module: object) -> bool:
        file = getattr(module, "__dict__", {}).get(
            "__file__"
        )  # asking a lazy module itself may import what it stands for
        return str(file or "").startswith(f"{self.root}{os.sep}")

    def import_what_was_imported(self) -> None:
        """Import here what the last tests needed, all that lies in the project excepted."""
        for name in self._log.with_name("imported").read_text().split("\n"):
            if name.partition(".")[0] not in ("taxadiffusion", "tests", "__main__") and "pytest" not in name:
                try:
                    importlib.import_module(name)
                except Exception:  # noqa: BLE001 — made by a test, or of another's inner life; a fork imports it itself
                    continue


def _end(child: int, number: int) -> None:
    try:
        os.killpg(child, number)
    except (ProcessLookupError, PermissionError):
        return
