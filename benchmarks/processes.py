"""Two gloo processes against one, on this machine: seconds of a step and bytes that travel.

`python -m benchmarks.processes [--steps N] [--rounds N] [--json FILE]`. The real command, two by `accelerate launch`,
one thread a process, the same global batch; runs of one and of two processes take turns. Efficiency is t1 / (2 · t2)
(1 would be perfect). Beside them two runs that know nothing of each other, each of half the batch: what this machine's
two cores can do at all, so t_apart / t2 is what the exchange costs. Only what a stage trains travels, once a step, as
float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.timing import calibrate
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.config import Settings, parse
from taxadiffusion.dataset import prepare
from taxadiffusion.run import trial
from taxadiffusion.simulate import simulate
from taxadiffusion.trainer.watchers import METRICS_FILE, read_metrics
from taxadiffusion.trainer.world import World

BATCH_SIZE = 32
WARM_UP = 2  # steps of each stage that are not counted
STAGES = ("genus", "species")


def settings_of(data: Path, out: Path, steps: int, batch_size: int = BATCH_SIZE) -> dict[str, Any]:
    return {
        "recipe": "best",
        "data": {"path": str(data), "ranks": list(STAGES), "cache_dir": str(data.parent / "cache")},
        "base": {"path": SHIPPED_BASE},
        "stages": {"steps": steps, "lora_in_every_stage": False},
        "training": {"batch_size": batch_size},
        "preview": {"num_taxa": 0},
        "output": {"path": str(out), "tensorboard": False},
        "num_threads": 1,
    }


def started(
    data: Path, out: Path, steps: int, num_processes: int, batch_size: int = BATCH_SIZE
) -> subprocess.Popen[bytes]:
    """A run of `num_processes`."""
    config = out.with_suffix(".json")
    config.write_text(json.dumps(settings_of(data, out, steps, batch_size)))  # JSON is YAML
    command = str(Path(sys.executable).with_name("taxadiffusion"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log_of(out).open("w") as log:  # a file: a pipe could fill while another run is waited for
        return subprocess.Popen(
            [*launched(num_processes), command, "train", str(config)],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def launched(num_processes: int) -> list[str]:
    """What stands before a command to start it `num_processes` times; one needs no launcher.

    `--cpu` would start it once, whatever the number; with `--multi_gpu` it is started as often, GPUs or not.
    """
    if num_processes == 1:
        return []
    return [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1",
        "--num_processes", str(num_processes), "--mixed_precision", "no", "--dynamo_backend", "no",
        "--num_cpu_threads_per_process", "1", "--no_python",
    ]  # fmt: skip


def check_launcher() -> None:
    """Ends the program where the launcher does not start two."""
    says = [sys.executable, "-c", "import os; print('one of', os.environ.get('WORLD_SIZE'))"]
    done = subprocess.run([*launched(2), *says], capture_output=True, text=True, check=False)
    if done.stdout.count("one of 2") != 2:
        raise SystemExit(f"the launcher did not start two processes: {done.stdout} {done.stderr[-1000:]}")


def log_of(out: Path) -> Path:
    return out.with_suffix(".log")


def seconds_of(run: subprocess.Popen[bytes], out: Path) -> dict[str, float]:
    """Median seconds of a step of each stage, when the run is done."""
    if run.wait():
        raise SystemExit(f"{out.name} ended with {run.returncode}: {log_of(out).read_text()[-2000:]}")
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
    check_launcher()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        simulate(folder / "clade", seed=2, num_species=12, num_images=240)
        prepare(folder / "clade", folder / "prepared")
        parsed: Settings = parse(settings_of(folder / "prepared", folder / "none", args.steps))
        trained = {cost.stage: cost.num_trained for cost in trial(parsed, World()).costs}
        seconds: dict[str, list[dict[str, float]]] = {"one": [], "two": [], "apart": []}
        for number in range(args.rounds):
            for name, count in (("one", 1), ("two", 2)):
                out = folder / f"{name}{number}"
                seconds[name].append(seconds_of(started(folder / "prepared", out, args.steps, count), out))
            outs = [folder / f"apart{number}-{side}" for side in "ab"]
            runs = [started(folder / "prepared", out, args.steps, 1, BATCH_SIZE // 2) for out in outs]
            seconds["apart"] += [seconds_of(run, out) for run, out in zip(runs, outs, strict=True)]
    report = []
    for stage in STAGES:
        one, two, apart = (median(run[stage] for run in seconds[name]) for name in ("one", "two", "apart"))
        report.append(
            {"stage": stage, "one_s": one, "two_s": two, "apart_s": apart, "efficiency": one / two / 2,
             "of_what_two_runs_apart_reach": apart / two, "bytes": 4 * trained[stage]}
        )  # fmt: skip
        print(
            f"{stage:8}  1 process {one:.3f} s  2 processes {two:.3f} s  2 runs apart {apart:.3f} s  efficiency "
            f"{one / two / 2:.2f}, {apart / two:.2f} of what two runs apart reach  {4 * trained[stage] / 1e6:.1f} MB"
        )
    if args.json:
        args.json.write_text(json.dumps({"machine": asdict(before), "stages": report}, indent=2, default=str) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
