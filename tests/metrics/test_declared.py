"""Laws of a metric's declaration: one is enough, and the documents say what the declarations say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.evaluate.evaluation import JudgeSettings, Networks, evaluate
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.metrics import declared
from taxadiffusion.metrics.frequency import BUCKETS, TAIL
from taxadiffusion.metrics.metric import Metric
from taxadiffusion.report.command import write_results
from tests.coloured_dataset import dataset
from tests.coloured_pictures import RANKS, Colours, fresh

__all__ = ["dataset"]

LENGTH = Metric(
    key="feature_length",
    label="Length of <features>",
    decimals=1,
    better="less",
    meaning="Mean Euclidean length & nothing else.",
    of=lambda seen: np.linalg.norm(seen.features, axis=1),
    at_once=True,
)


def test_a_metric_that_is_declared_is_measured_written_shown_and_compared(
    dataset: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In JSON (by rank and by bucket), HTML, Markdown and LaTeX, its better side marked, by one line in the tuple."""
    monkeypatch.setattr(declared, "METRICS", (*declared.METRICS, LENGTH))
    methods = {name: [generated_folder(fresh(tmp_path / name, i, ("species",)), RANKS)] for i, name in enumerate("ab")}
    results = evaluate(dataset, methods, Networks(Colours()), JudgeSettings(RANKS, size_px=32))
    write_results(results, tmp_path / "out", command="", size_px=32)
    document = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    found = {name: document["table1"][name]["species"]["feature_length"] for name in "ab"}
    seen = {name: Colours()(np.stack([p.load(i, 32) for i in range(len(p))])) for name, (p,) in methods.items()}
    for name, features in seen.items():  # as many of each taxon, so the mean of taxa is the mean
        assert found[name]["mean"] == pytest.approx(np.linalg.norm(features, axis=1).mean(), rel=1e-4)
        buckets = document["details"][name]["species"]["buckets"].values()
        assert buckets
        assert all("feature_length" in bucket for bucket in buckets)
    page, markdown, latex = (
        (tmp_path / "out" / file).read_text(encoding="utf-8") for file in ("report.html", "tables.md", "tables.tex")
    )
    figure = f"{found['a']['mean']:.1f}"
    assert f"### Length of <features>\n\n{LENGTH.meaning}" in markdown
    assert figure in markdown.split("### Length of")[1].split("###")[0]
    assert r"Mean Euclidean length \& nothing else" in latex
    at = page.index("<h3>Length of &lt;features&gt;</h3>")
    assert at < page.index("All other metrics")
    shown = page[at : page.index("</figure>", at)]
    assert figure in shown
    assert "Mean Euclidean length &amp; nothing else." in shown
    best = min(found, key=lambda name: found[name]["mean"])
    assert f"<td class=best>{found[best]['mean']:.1f}" in shown.replace('"best"', "best")


def test_keys_and_labels_are_each_of_one_metric() -> None:
    for field in ("key", "label"):
        values = [getattr(metric, field) for metric in declared.METRICS]
        assert len(set(values)) == len(values)


def test_the_documents_table_of_metrics_is_the_declarations() -> None:
    lines = [f"| `{m.key}` | {m.label} | {m.better} | {m.meaning} |" for m in declared.METRICS]
    document = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert "\n".join(["| key | label | better | meaning |", "|---|---|---|---|", *lines]) in document


def test_both_sets_of_buckets_meet_at_the_same_limits_and_hold_every_number_once() -> None:
    assert [b.name for b in BUCKETS] == ["0", "1–5", "6–20", "21–100", ">100"]
    assert [b.name for b in TAIL] == ["1", "2-5", "6-20", "21-100", ">100"]
    for found in (BUCKETS, TAIL):
        held = np.stack([bucket.holds(np.arange(1, 300)) for bucket in found])
        assert (held.sum(0) == 1).all()
        assert [[bucket.holds(n) for n in range(1, 300)] for bucket in found] == held.tolist()
