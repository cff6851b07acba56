"""Report a pretraining: held-out loss against samples, as a page with a chart and as a table.

python -m training.curve work/base/log.jsonl --out work/base
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from taxadiffusion.errors import DataError
from taxadiffusion.report.blocks import code
from taxadiffusion.report.charts import Series, line_chart
from taxadiffusion.report.page import Section, page
from training.command import run

HELD = "held_"
NUM_ROWS = 20


def points(path: Path) -> list[dict[str, float]]:
    """The lines of a log that hold losses, in the order of samples; of a state gone back to, the later line."""
    if not path.is_file():
        raise DataError(f"{path}: missing; run training.pretrain first")
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    found = {line["samples"]: line for line in lines if any(key.startswith(HELD) for key in line)}
    if not found:
        raise DataError(f"{path}: no held-out loss is logged yet")
    return [found[samples] for samples in sorted(found)]


def table(found: list[dict[str, float]]) -> str:
    """Markdown, at most `NUM_ROWS` rows, the last among them; what a thousand samples more brought at the end."""
    names = sorted({key for point in found for key in point if key.startswith(HELD)})
    every = -(-len(found) // NUM_ROWS)
    shown = found[::-1][::every][::-1]
    lines = [
        "| samples | " + " | ".join(name.removeprefix(HELD) for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    lines += [
        f"| {p['samples']:,} | " + " | ".join(f"{p[name]:.4f}" if name in p else "" for name in names) + " |"
        for p in shown
    ]
    falls = [f"{name.removeprefix(HELD)} {fall:+.4f}" for name in names if (fall := slope(found, name)) is not None]
    if falls:
        lines += ["", f"A thousand samples at the end (the last third of the log): {', '.join(falls)}."]
    return "\n".join(lines) + "\n"


def slope(found: list[dict[str, float]], name: str) -> float | None:
    """How a loss changes in a thousand samples over the last third of the log; None where two points are missing."""
    last = [p for p in found if name in p and p["samples"] >= found[-1]["samples"] * 2 / 3]
    if len(last) < 2:
        return None
    return 1000 * (last[-1][name] - last[0][name]) / (last[-1]["samples"] - last[0]["samples"])


def write(path: Path, out: Path) -> Path:
    """`curve.md` and `curve.html`."""
    found = points(path)
    names = sorted({key for point in found for key in point if key.startswith(HELD)})
    series = [
        Series(
            name.removeprefix(HELD), [p["samples"] for p in found if name in p], [p[name] for p in found if name in p]
        )
        for name in names
    ]
    out.mkdir(parents=True, exist_ok=True)
    text = table(found)
    (out / "curve.md").write_text(text, encoding="utf-8")
    chart = line_chart(series, x_label="samples at 128 px", y_label="v-loss", caption="photographs never learnt from")
    section = Section("Held-out loss", (chart, code(text)))
    (out / "curve.html").write_text(page("Pretraining", str(path.name), [section]), encoding="utf-8")
    return out / "curve.html"


def command() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("log", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    print(write(args.log, args.out))


if __name__ == "__main__":
    run(command)
