"""Two gloo processes against one, on this machine: seconds of a step and bytes that travel.

`python -m benchmarks.processes [--steps N] [--rounds N] [--json FILE]`. The real command under `accelerate launch`, one
thread a process, the same global batch; runs of one and of two processes take turns. Efficiency is t1 / (2 · t2)
(1 would be perfect). Only what a stage trains travels, once a step, as float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.measure import calibrate
from taxadiffusion.build import trial
from taxadiffusion.config import Settings, parse
from taxadiffusion.dataset import prepare
from taxadiffusion.simulate import simulate
from taxadiffusion.trainer.watchers import METRICS_FILE, read_metrics
from taxadiffusion.trainer.world import World

BATCH_SIZE = 32
WARM_UP = 2  # steps of each stage that are not counted
STAGES = ("genus", "species")


def settings_of(data: Path, out: Path, steps: int) -> dict[str, Any]:
    return {
        "recipe": "best",
        "data": {"path": str(data), "ranks": list(STAGES), "cache_dir": str(data.parent / "cache")},
        "base": {"path": "nano"},
        "stages": {"steps": steps, "lora_in_every_stage": False},
        "training": {"batch_size": BATCH_SIZE},
        "preview": {"num_taxa": 0},
        "output": {"path": str(out), "tensorboard": False},
        "num_threads": 1,
    }


def train(data: Path, out: Path, steps: int, num_processes: int) -> dict[str, float]:
    """Median seconds of a step of each stage, of a run by the launcher."""
    config = out.with_suffix(".json")
    config.write_text(json.dumps(settings_of(data, out, steps)))  # JSON is YAML
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_machines", "1", "--num_processes"]
    more = ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1", "--no_python"]
    command = str(Path(sys.executable).with_name("taxadiffusion"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*launcher, str(num_processes), *more, command, "train", str(config)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{num_processes} processes ended with {done.returncode}: {done.stderr[-2000:]}")
    steps_done = [line for line in read_metrics(out / METRICS_FILE) if line["event"] == "StepDone"]
    return {
        stage: median(line["seconds"] for line in steps_done if line["stage"] == stage and line["stage_step"] > WARM_UP)
        for stage in STAGES
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.processes", description=__doc__)
    parser.add_argument("--steps", type=int, default=12, help="of each of the two stages")
    parser.add_argument("--rounds", type=int, default=3, help="runs with one process and with two, in turn")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    before = calibrate()
    if not before.quiet:
        print("other processes load this machine; two processes could not have two cores. Try again.", file=sys.stderr)
        return 75
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(folder / "clade", seed=2, num_species=12, num_images=240)
        prepare(folder / "clade", folder / "prepared")
        parsed: Settings = parse(settings_of(folder / "prepared", folder / "none", args.steps))
        trained = {cost.stage: cost.num_trained for cost in trial(parsed, World()).costs}
        seconds: dict[int, list[dict[str, float]]] = {1: [], 2: []}
        for number in range(args.rounds):
            for num_processes in (1, 2):
                out = folder / f"run{number}-{num_processes}"
                seconds[num_processes].append(train(folder / "prepared", out, args.steps, num_processes))
    report = []
    for stage in STAGES:
        one, two = (median(run[stage] for run in seconds[count]) for count in (1, 2))
        row = {"stage": stage, "one_s": one, "two_s": two, "efficiency": one / two / 2, "bytes": 4 * trained[stage]}
        report.append(row)
        print(
            f"{stage:8}  1 process {one:.3f} s  2 processes {two:.3f} s  efficiency {row['efficiency']:.2f}  "
            f"{row['bytes'] / 1e6:.1f} MB a step"
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": before.__dict__, "stages": report}, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
