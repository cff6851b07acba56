"""Peak memory of one side's training, in a process of its own: of the process, or of the GPU where there is one."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from pathlib import Path

import torch

from benchmarks.ours import OurStep
from benchmarks.peers import PublishedStep
from benchmarks.workload import Workload, full_size, shipped


def peak_bytes(side: str, workload: Workload, folder: Path) -> dict[str, int]:
    """Of a process that trains two steps of the last stage: as a whole; above what importing libraries takes; and that
    once the model is loaded, for reading a base needs more than having it.

    Ours holds a full-size base in bfloat16 (`base.dtype`), whatever is faster here.
    """
    size = workload.suffix or "small"
    command = [sys.executable, "-m", "benchmarks.memory", side, size, workload.base, str(folder), workload.device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak(device: str) -> int:
    if device != "cpu":
        return int(torch.cuda.max_memory_allocated())
    # Not getrusage: its maximum lives through exec, so that a child would begin with its parent's.
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))


def _forget_peak(device: str) -> None:
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        return
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the maximum begins again at what is resident now


def main(side: str, size: str, base: str, folder: str, device: str) -> None:
    imported = _peak(device)
    workload = (
        shipped(device=device) if size == "small" else full_size(Path(base), device=device, precision=torch.bfloat16)
    )
    step = PublishedStep(workload) if side == "published" else OurStep(workload, Path(folder))
    step.begin(workload.stages()[-1])
    loading = _peak(device)
    _forget_peak(device)
    for _ in range(2):
        step()
    training = _peak(device)
    total = max(loading, training)
    print(json.dumps({"total": total, "above_imports": total - imported, "training": training - imported}))


if __name__ == "__main__":
    main(*sys.argv[1:])
