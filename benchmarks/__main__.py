"""`python -m benchmarks [--quick] [--json FILE]`: one table of ratios; larger than 1 means that ours is faster."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.budget import software, within
from benchmarks.compare import Compared, compare
from benchmarks.memory import peak_bytes
from benchmarks.ours import build_caches
from benchmarks.timing import Calibration, Clock, DeviceClock, calibrate
from benchmarks.workload import Workload, faster_precision, full_size, shipped


def main() -> int:
    args = _arguments()
    if args.budget_s:
        return within(args.budget_s, args.device, args.json, small=args.quick)
    if args.device != "cpu" and not torch.cuda.is_available():
        print(f"--device {args.device}: this torch sees no GPU", file=sys.stderr)
        return 2
    clock = _clock(args)
    before = calibrate()
    if not (before.quiet or args.loaded):
        print(_busy("before", before), file=sys.stderr)
        return 75
    found: list[Compared] = []
    memory: dict[str, float] = {}
    precision: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        workloads = _workloads(args, Path(scratch))
        for workload in workloads:
            folder = Path(scratch) / f"caches{workload.suffix}"
            folder.mkdir()
            precision[f"ours{workload.suffix}"] = str(workload.precision).removeprefix("torch.")
            num_pairs = 3 if args.quick else 2 if workload.suffix else 8
            compiled = not args.quick and not workload.suffix  # a large base takes too long to compile
            found.append(compare(workload, folder, num_pairs, clock, compiled=compiled))
            so_far = _report(args, [before], found, memory, precision)  # should it end early
            print(_table(so_far), file=sys.stderr, flush=True)
        if not args.quick:
            for workload in workloads:
                memory |= _memory(workload, Path(scratch))
    after = calibrate()
    if not (after.quiet or args.loaded):
        print(_busy("after", after), file=sys.stderr)
        return 75
    report = _report(args, [before, after], found, memory, precision)
    print(_table(report))
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")
    return 0


def _clock(args: argparse.Namespace) -> Clock:
    if not args.loaded:
        return time.perf_counter
    torch.set_num_threads(1)  # processor time then is the time of the work
    return time.process_time if args.device == "cpu" else DeviceClock()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the shipped base alone, few repetitions, no memory")
    parser.add_argument("--json", type=Path, help="write everything measured to this file")
    parser.add_argument(
        "--loaded",
        action="store_true",
        help="report although other processes load the machine: one thread, processor time (on a GPU its own clock) "
        "instead of elapsed time, and the report says so",
    )
    parser.add_argument(
        "--budget-s",
        type=float,
        help="Stable Diffusion 1.5's shapes on the device and the shipped base at a large batch, in so many seconds; "
        "rows are written to the JSON file as they come (with --quick: tiny shapes, to try it)",
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda; both sides of every ratio run there")
    parser.add_argument("--full-size-base", type=Path, help="where Stable Diffusion 1.5's shapes are, or are written")
    return parser.parse_args()


def _workloads(args: argparse.Namespace, scratch: Path) -> list[Workload]:
    if args.quick:
        return [shipped(quick=True, device=args.device)]
    folder = args.full_size_base or scratch / "full_size"
    return [
        shipped(device=args.device),
        full_size(folder, device=args.device, precision=faster_precision(args.device)),
    ]


def _memory(workload: Workload, scratch: Path) -> dict[str, float]:
    """Ours over the published step's: of whole processes, of what they hold beyond imported libraries, and of that once
    the model is loaded."""
    folder = scratch / f"memory{workload.suffix}"
    folder.mkdir()
    build_caches(workload, folder, None)
    published, ours = (peak_bytes(side, workload, folder) for side in ("published", "ours"))
    return {
        f"memory{workload.suffix}": ours["total"] / published["total"],
        f"memory_above_imports{workload.suffix}": ours["above_imports"] / published["above_imports"],
        f"memory_training{workload.suffix}": ours["training"] / published["training"],
        **{
            f"memory_{side}_{part}_bytes{workload.suffix}": found[part]
            for side, found in (("published", published), ("ours", ours))
            for part in ("total", "above_imports", "training")
        },
    }


def _busy(when: str, found: Calibration) -> str:
    return (
        f"the machine is not free {when} measuring: the calibration kernel's runs differ by {found.spread:.2f}× and "
        f"get {found.cpu_share:.0%} of the processor; stop other processes and run again, or pass --loaded"
    )


def _report(
    args: argparse.Namespace,
    calibrations: list[Calibration],
    found: list[Compared],
    memory: dict[str, float],
    precision: dict[str, str],
) -> dict[str, Any]:
    return {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "device": torch.cuda.get_device_name() if args.device != "cpu" else "cpu",
            "threads": torch.get_num_threads(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "versions": software(),
        "loaded": args.loaded,
        "clock": _clock_name(args),
        "calibration": [asdict(one) for one in calibrations],
        "ratios": [asdict(ratio) for one in found for ratio in one.ratios],
        "roofline": {name: asdict(line) for one in found for name, line in one.rooflines.items()},
        "images_per_s": {name: rate for one in found for name, rate in one.images_per_s.items()},
        "precision": precision,
        "memory": memory,
    }


def _clock_name(args: argparse.Namespace) -> str:
    if not args.loaded:
        return "elapsed time"
    return "processor time of one thread" if args.device == "cpu" else "the GPU's own clock"


def _table(report: dict[str, Any]) -> str:
    lines = [f"MEASURED ON A LOADED MACHINE: {report['clock']}"] if report["loaded"] else []
    lines.append(f"{'ratio':52} {'median':>7} {'low':>7} {'high':>7} {'peer s':>9} {'ours s':>9}")
    for row in report["ratios"]:
        lines.append(
            f"{row['name']:52} {row['ratio']:7.2f} {row['low']:7.2f} {row['high']:7.2f} "
            f"{row['peer_s']:9.3f} {row['ours_s']:9.3f}"
        )
    for name, line in report["roofline"].items():
        lines.append(
            f"roofline {name}: U-Net forward {line['forward_flops'] / 1e9:.1f}, backward "
            f"{line['backward_flops'] / 1e9:.1f}, plain products {line['matmul_flops'] / 1e9:.1f} GFLOP/s; "
            f"{line['unet_share']:.0%} of the step is the U-Net"
        )
    lines += [f"precision of the base, {name}: {value}" for name, value in report["precision"].items()]
    lines += [f"images/s {name}: {rate:.1f}" for name, rate in report["images_per_s"].items()]
    lines += [f"{name}: {value:.4g}" for name, value in report["memory"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
