"""Laws of the watchers: no step stands twice in the log, pictures show what it holds, a collapsed encoder is said."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from taxadiffusion.cli.train_screen import Screen
from taxadiffusion.config import Settings
from taxadiffusion.errors import CheckpointError
from taxadiffusion.names import Lineage
from taxadiffusion.trainer import events
from taxadiffusion.trainer.curve import draw_curve
from taxadiffusion.trainer.previews import preview_sheet, preview_taxa
from taxadiffusion.trainer.watchers import Curve, MetricsLog, Previews, read_metrics, watched
from tests.tiny_run import lineage_of, tiny_denoiser


def done(step: int, loss: float = 1.0) -> events.StepDone:
    return events.StepDone(step, "order", step, loss, 0.1, 1e-4, 8 * step, 0.01)


def resumed(step: int) -> events.Resumed:
    return events.Resumed(step, Path("step"), (), ())


def test_steps_after_the_commit_are_forgotten_when_they_are_done_again(tmp_path: Path) -> None:
    for _ in watched(iter([done(1), done(2), done(3)]), [MetricsLog(tmp_path)]):
        pass
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"event": "StepDone", "st')  # killed while it wrote
    list(watched(iter([resumed(2), done(3, 0.5)]), [MetricsLog(tmp_path)]))
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 1.0), (3, 0.5)]


def test_a_run_that_begins_anew_begins_a_new_log(tmp_path: Path) -> None:
    list(watched(iter([done(1), done(2)]), [MetricsLog(tmp_path)]))
    list(watched(iter([done(1, 0.5)]), [MetricsLog(tmp_path)]))
    assert [line["loss"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.5]


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_log_that_cannot_be_written_names_path_and_space(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl.*are free"):
        MetricsLog(tmp_path)(done(1))


def test_the_curve_falls_where_the_loss_falls(tmp_path: Path) -> None:
    lines = [{"event": "StepDone", "step": s, "stage": "order", "loss": 1 - s / 2000} for s in range(1, 1001)]
    ink = np.asarray(draw_curve(lines)) == np.array([0x1B, 0x6C, 0xA8])  # the first stage's colour
    rows, columns = np.nonzero(ink.all(2)[40:-40])
    assert np.corrcoef(rows, columns)[0, 1] > 0.95  # image rows count downwards
    assert draw_curve([]).size == draw_curve(lines).size
    list(
        watched(iter([done(1), events.CheckpointCommitted(1, tmp_path, 0.1)]), [MetricsLog(tmp_path), Curve(tmp_path)])
    )
    assert Image.open(tmp_path / "losses.png").size == draw_curve([]).size


def test_what_a_watcher_says_is_shown_to_all_and_passed_on_after_the_event(tmp_path: Path) -> None:
    lost = events.TrackerLost(1, "wandb", "gone")
    seen: list[events.Event] = []

    def says(event: events.Event) -> events.Event | None:
        return lost if isinstance(event, events.StepDone) else None

    passed_on = list(watched(iter([done(1)]), [seen.append, says, MetricsLog(tmp_path)]))
    assert passed_on == seen == [done(1), lost]
    assert [line["event"] for line in read_metrics(tmp_path / "metrics.jsonl")] == ["StepDone", "TrackerLost"]


def test_previews_are_drawn_when_due_and_not_when_given_up(tmp_path: Path) -> None:
    due = events.PreviewDue(7, "order", "order")
    Previews(tmp_path, lambda _: None)(due)
    assert not (tmp_path / "previews").exists()
    Previews(tmp_path, lambda _: Image.new("RGB", (8, 8)))(due)
    assert Image.open(tmp_path / "previews" / "step-7-order.png").size == (8, 8)


def test_preview_taxa_are_spread_and_deep() -> None:
    taxa = [lineage_of(taxon_id) for taxon_id in range(8)] + [Lineage.of({"order": "O0"})]
    assert preview_taxa(taxa, 4) == [lineage_of(taxon_id) for taxon_id in (0, 2, 4, 6)]
    assert len(preview_taxa(taxa, 99)) == 8


def test_a_sheet_is_given_up_between_batches() -> None:
    denoiser = tiny_denoiser()
    assert (
        preview_sheet(denoiser, [lineage_of(0)], "genus", num_steps=1, guidance_scale=1, give_up=lambda: True) is None
    )


def test_the_screen_warns_of_an_encoder_that_tells_no_names_apart(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(Settings())
    screen.task = screen.progress.add_task("training", note="")
    screen.show(events.NamesCompared(7, "family", {"order": 0.2, "family": 0.001}))
    shown = capsys.readouterr().out
    assert "order 0.200, family 0.001" in shown
    assert "warning: the encoder of family makes nearly the same of every name" in shown
    screen.show(events.NamesCompared(7, "order", {"order": 0.2}))
    assert "warning" not in capsys.readouterr().out
