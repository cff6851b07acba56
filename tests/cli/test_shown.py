"""Progress where nobody watches a terminal: a job's log keeps what is done and how long the rest takes."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from taxadiffusion.cli import shown
from taxadiffusion.cli.shown import SAY_EVERY_S, Lines, moving, parts, working


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return now


def log_of(stream: io.StringIO) -> list[str]:
    """Without the time of day."""
    return [line.partition(" ")[2] for line in stream.getvalue().splitlines()]


def test_words_of_another_kind_are_told_at_once_and_numbers_alone_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    say = Lines(Console(file=stream))
    for number in range(5):
        say(f"lora, seed 0: image {number} of 40")
    say("measuring")
    clock[0] += SAY_EVERY_S
    say("lora, seed 0: image 30 of 40")
    assert log_of(stream) == ["lora, seed 0: image 0 of 40", "measuring", "lora, seed 0: image 30 of 40"]


def test_words_are_told_as_they_are() -> None:
    stream = io.StringIO()
    Lines(Console(file=stream))("[bold]a path/[0]")
    assert log_of(stream) == ["[bold]a path/[0]"]


def test_a_log_says_how_much_is_left_by_what_was_done_since_the_start(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with moving("pictures", 100) as bar:
        bar.count("pictures", 40, 100)  # lay there already
        clock[0] += 2 * SAY_EVERY_S
        bar.count("pictures", 60, 100)
    said = log_of(io.StringIO(capsys.readouterr().err))
    assert said == ["pictures: 40 of 100", "pictures: 60 of 100, about 0:04:00 left"]


def test_a_log_names_each_step_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    with working() as told:
        told("reading photographs")
        told("features of train")
    assert log_of(io.StringIO(capsys.readouterr().err)) == ["reading photographs", "features of train"]


def test_of_a_launch_the_first_process_alone_writes_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {}
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        stream = io.StringIO()
        Lines(Console(file=stream))("measuring")
        told[rank] = log_of(stream)
    assert told == {"0": ["measuring"], "1": []}


def test_on_a_terminal_a_bar_moves(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes it for a terminal
    with moving("pictures", 2) as bar:
        bar.count("pictures", 2, 2)
    assert "2/2" in capsys.readouterr().err


def test_a_log_tells_each_part_of_the_work_and_how_long_the_rest_of_it_takes(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with parts() as told:
        told("pictures", 0, 2)
        told("latents", 0, 4)
        told("pictures", 1, 2)  # right after the last line about it
        clock[0] += SAY_EVERY_S
        told("latents", 1, 4)
        told("pictures", 1, 2)
    said = log_of(io.StringIO(capsys.readouterr().err))
    assert said == [
        "pictures: 0 of 2",
        "latents: 0 of 4",
        "latents: 1 of 4, about 0:03:00 left",
        "pictures: 1 of 2, about 0:01:00 left",
    ]
