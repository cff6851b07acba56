"""Laws of the command: what cannot be served is one error before anything is drawn."""

from __future__ import annotations

import socket
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.errors import CheckpointError, DataError, SettingsError
from taxadiffusion.web import workshop
from taxadiffusion.web.serve import Address, _open, listening
from tests import fake_processes


def test_a_port_that_is_taken_is_a_setting_that_is_wrong(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(app, ["serve", "--port", port, "--store", str(tmp_path)])
    assert isinstance(result.exception, SettingsError)
    said = str(result.exception)
    assert f"--port {port}: that port is taken" in said
    assert f"http://127.0.0.1:{port}" in said
    assert f"--port {int(port) + 1}" in said


@pytest.mark.parametrize(
    ("options", "fault", "words"),
    [
        (["--extractor", "inception"], SettingsError, "--data"),
        (["--data", "nowhere"], DataError, "nowhere"),
        (["--host", "256.1.1.1"], SettingsError, "--host"),
    ],
)
def test_what_is_missing_is_told_before_a_model_is_opened(
    options: list[str], fault: type[Exception], words: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["serve", "no-model", "--port", "0", "--store", str(tmp_path), *options])
    assert isinstance(result.exception, fault), result.exception
    assert words in str(result.exception)


class Browser:
    """A desktop's, which notes what it is asked for."""

    def __init__(self, *, works: bool = True) -> None:
        self.works, self.asked = works, list[str]()

    def open(self, url: str) -> bool:
        self.asked.append(url)
        return self.works


@pytest.mark.parametrize("works", [True, False])
def test_the_page_is_opened_or_it_is_said_what_to_open(works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    browser, words = Browser(works=works), list[str]()
    monkeypatch.setattr("webbrowser.get", lambda: browser)
    _open("http://127.0.0.1:8000", words.append)
    assert browser.asked == ["http://127.0.0.1:8000"]
    assert words == ([] if works else ["no browser could be opened from here; open http://127.0.0.1:8000 yourself"])


def test_no_browser_takes_the_terminal_unless_it_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    opened, words = list[str](), list[str]()
    monkeypatch.delenv("BROWSER", raising=False)
    monkeypatch.setattr("webbrowser.get", lambda: webbrowser.GenericBrowser("lynx"))
    monkeypatch.setattr("webbrowser.GenericBrowser.open", lambda _, url: opened.append(url) or True)
    _open("http://127.0.0.1:8000", words.append)
    assert (opened, len(words)) == ([], 1)
    monkeypatch.setenv("BROWSER", "lynx")
    _open("http://127.0.0.1:8000", words.append)
    assert (opened, len(words)) == (["http://127.0.0.1:8000"], 1)

    def none() -> None:
        raise webbrowser.Error

    monkeypatch.setattr("webbrowser.get", none)
    _open("http://127.0.0.1:8000", words.append)
    assert len(words) == 2


@pytest.mark.parametrize(
    ("host", "called"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("::1", "[::1]"), ("fish.org", "fish.org")]
)
def test_an_address_is_told_as_a_browser_here_asks_for_it(host: str, called: str) -> None:
    assert Address(host).called == called


def test_a_page_is_sent_at_once() -> None:
    """asyncio sets TCP_NODELAY where the socket names its protocol; else head and body wait 40 ms for each other."""
    with listening(Address(port=0)) as listens:
        assert listens.proto == socket.IPPROTO_TCP


def test_a_model_that_cannot_be_opened_is_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workshop, "work", fake_processes.refuse)
    result = CliRunner().invoke(app, ["serve", "empty", "--port", "0", "--store", str(tmp_path / "s")])
    assert isinstance(result.exception, CheckpointError), result.exception
    assert str(result.exception) == "empty holds no adapter.json"
    assert not (tmp_path / "s").exists()
