"""One run of goal 5 in an interpreter of its own: `python -m tests.faults.environment RUN_DIR [options]`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from tests.faults.network import watch_network
from tests.faults.resume import STEPS, settings
from tests.faults.training import Job


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--clock", type=float, default=0.0, help="seconds that the clock is off")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--validate", type=int, default=3)
    arguments = parser.parse_args()
    watch_network()
    torch.set_num_threads(1)
    if arguments.clock:
        real = time.time
        time.time = lambda: real() + arguments.clock
    chosen = settings(arguments.workers)
    chosen["validation"] = {"every_steps": arguments.validate}
    arguments.run_dir.mkdir(parents=True)
    Job(arguments.run_dir, steps=STEPS, settings=chosen).run()


if __name__ == "__main__":
    main()
