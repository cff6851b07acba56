"""Laws of paths on the command line: every parameter of type `Path` reads `~`, and a bad one is one line and exit 2."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import typing
from pathlib import Path

import pytest
from typer.models import ParameterInfo

from taxadiffusion import cli, files
from taxadiffusion.cli.check import format_options
from taxadiffusion.cli.paths import path_argument
from taxadiffusion.files import user_path, user_text


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["taxadiffusion", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_every_path_of_every_command_is_read_in_one_way() -> None:
    num_paths = 0
    for command in cli.app.registered_commands:
        assert command.callback is not None
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            if "pathlib" in str(getattr(hint, "__origin__", "")):
                (info,) = (extra for extra in hint.__metadata__ if isinstance(extra, ParameterInfo))
                assert info.parser is path_argument, (command.callback.__name__, name)
                num_paths += 1
    assert num_paths >= 15


@pytest.mark.parametrize(
    ("code", "remedy"), [(errno.ENOSPC, "make room"), (errno.EROFS, "name another"), (errno.EACCES, "name another")]
)
def test_a_place_that_cannot_be_written_is_one_line_and_exit_4(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    code: int,
    remedy: str,
) -> None:
    """Whichever command writes, and whatever writes for it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code), "a.png")

    monkeypatch.setattr("PIL.Image.Image.save", refuse)
    asked = ("simulate", str(tmp_path / "clade"), "--num-species", "2", "--num-images", "16", "--size-px", "16")
    assert run(monkeypatch, *asked) == 4
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"error: a.png: {os.strerror(code)}; {remedy}")


def test_a_file_where_a_folder_is_to_go_is_one_line_and_exit_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    assert run(monkeypatch, "demo", "--out", str(tmp_path / "file")) == 4
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("code", [errno.EBADF, errno.EPERM])
def test_other_faults_keep_their_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """They are the program's, and a report of them needs it: also one that names no place."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    monkeypatch.setattr(sys, "argv", ["taxadiffusion", "simulate", str(tmp_path / "clade"), "--size-px", "16"])
    with pytest.raises(OSError, match=os.strerror(code)):
        cli.main()


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert user_path("~/a") == tmp_path / "a"
    assert user_path("a/~b") == Path("a/~b")
    assert user_text("~/base") == str(tmp_path / "base")
    assert user_text("./nano") == "./nano"
    assert format_options(["--names=~/names.csv"]) == {"names": str(tmp_path / "names.csv")}
    assert run(monkeypatch, "simulate", "~/clade", "--num-species", "2", "--num-images", "16", "--size-px", "16") == 0
    assert (tmp_path / "clade" / "metadata.csv").is_file()
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["simulate", "x" * 300], "has 300 bytes"),
        (["train", "/".join(["abcdefgh"] * 600)], "at most 4095"),
        (["prepare", "~no.user/fish", "out"], "no home folder"),
        (["generate", "~no.user/run", "Zanclus"], "no home folder"),
        (["prepare", "source", "out", "--names", "~no.user/n.csv"], "no home folder"),
        (["simulate", "clade", "--seed", "99999999999999999999"], "--seed"),
        (["demo", "--seed", "99999999999999999999"], "--seed"),
        (["generate", "reef-fish", "Zanclus", "--seed", "99999999999999999999"], "--seed"),
        (["evaluate", "reef-fish", "--data", "x", "--seed", "9223372036854775808"], "--seed"),
        (["simulate", "clade", "--seed", "-1"], "--seed"),
        (["simulate"], "OUT"),
        (["nonsense"], "nonsense"),
        (["simulate", "clade", "--nonsense"], "nonsense"),
    ],
)
def test_a_bad_command_line_is_one_message_and_exit_2(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    told = capsys.readouterr().err
    assert words.lower() in told.lower()
    assert "Traceback" not in told
    assert not list(tmp_path.iterdir())


def torn(path: Path) -> None:
    with files.whole(path) as aside:
        aside.write_text("tw")
        aside.write_text(2)  # type: ignore[arg-type]


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    with files.whole(path, durable=True) as aside:
        aside.write_text("one")
        assert not path.exists()
    with pytest.raises(TypeError):
        torn(path)
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "one"


def test_those_who_only_look_at_a_lock_do_not_refuse_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("4711\n")
    with path.open() as first, path.open() as second, path.open("r+") as owner:
        assert files.locked(first.fileno(), shared=True)
        assert files.locked(second.fileno(), shared=True)
        assert not files.locked(owner.fileno())
    assert path.read_text() == "4711\n"


def test_a_lock_is_free_once_its_file_is_closed(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as second:
        with (tmp_path / "lock").open("w") as first:
            assert files.locked(first.fileno())
            assert not files.locked(second.fileno())
            assert not files.locked(second.fileno(), shared=True)
        assert files.locked(second.fileno(), wait=True)


def test_hashes_are_of_all_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 20000  # more than one piece
    (tmp_path / "data").write_bytes(data)
    assert files.sha256_of(tmp_path / "data") == hashlib.sha256(data).digest()
    assert files.joined_hash(("a", "b")) != files.joined_hash(("ab",))


def test_a_folder_that_cannot_be_replaced_is_the_one_of_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "adapter"
    files.write_folder(folder, {"card": b"old"})
    rename = Path.rename

    def refused(path: Path, target: Path) -> Path:
        if target == folder and (path / "card").read_bytes() == b"new":
            raise OSError("no room")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(OSError, match="no room"):
        files.write_folder(folder, {"card": b"new"})
    assert (folder / "card").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_is_broken_off_leaves_nothing_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_folder(tmp_path / "adapter", {"card": b"new"})
    assert not list(tmp_path.iterdir())
