"""Run the goals and write the report: one record per case, one summary per goal."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from tests.faults import crash, disk, frozen, network, processes, resume, signals, soak, strangers, traversal
from tests.faults.harness import Plan, Recorder
from tests.faults.training import pristine

GOALS: Mapping[int, Callable[[Plan], Recorder]] = {
    1: crash.run,
    2: disk.full_disk,
    3: disk.bit_rot,
    4: resume.resume,
    5: resume.environments,
    6: processes.as_one,
    7: processes.faults_of_one,
    8: signals.all_signals,
    9: signals.pairs,
    10: frozen.frozen_stages,
    11: strangers.run,
    12: traversal.run,
    13: frozen.not_finite,
    14: soak.run,
    15: network.no_network,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--report", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--subset", action="store_true", help="the few minutes that belong to `make test`")
    parser.add_argument(
        "--goal", type=int, action="append", choices=sorted(GOALS), help="only this goal; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--soak-minutes", type=float, default=30.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    network.watch_network()
    plan = Plan(arguments.subset, arguments.soak_minutes, arguments.seed)
    pristine()  # import and build once; every case forks from here
    started = time.monotonic()
    recorders = []
    for number in arguments.goal or sorted(GOALS):
        recorder = GOALS[number](plan)
        recorders.append(recorder)
        summary = recorder.summary()
        verdict = "passed" if summary["passed"] else "FAILED"
        print(
            f"goal {number:2}: {verdict}  {summary['cases_passed']}/{summary['planned']} cases  {summary['seconds']} s"
        )
        for case in recorder.cases:
            if not case.passed:
                print(f"    {case.id} (seed {case.seed}): {case.observed}")
        for reason in recorder.skipped:
            print(f"    skipped {reason}")
        sys.stdout.flush()
    report = {
        "subset": plan.subset,
        "seed": plan.seed,
        "seconds": round(time.monotonic() - started, 1),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
        },
        "goals": [recorder.summary() for recorder in recorders],
        "cases": [record for recorder in recorders for record in recorder.records()],
    }
    arguments.report.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0 if all(goal["passed"] for goal in report["goals"]) else 1


if __name__ == "__main__":
    sys.exit(main())
