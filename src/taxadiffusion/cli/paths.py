"""How every command reads a path: each parameter of type `Path`, in one place."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from typer.models import ParameterInfo

from taxadiffusion.files import user_path, user_text


def path_argument(text: str | Path) -> Path:
    """`user_path` for the command line: what is wrong becomes a usage error (exit 2)."""
    try:
        return user_path(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def text_argument(text: str) -> str:
    """`user_text` for the command line: a model, a base, an option of a format."""
    try:
        return user_text(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def read_paths(command: Callable[..., Any]) -> None:
    """Give every parameter of the command whose type is `Path` the parser above."""
    hints = typing.get_type_hints(command, include_extras=True)
    for hint in hints.values():
        if not hasattr(hint, "__metadata__") or not _is_path(hint.__origin__):
            continue
        for extra in hint.__metadata__:
            if isinstance(extra, ParameterInfo):
                extra.parser = path_argument
    command.__annotations__ = hints


def _is_path(kind: Any) -> bool:
    """Whether a parameter of this type holds paths: `Path`, `Path | None`, `list[Path]` …"""
    if typing.get_origin(kind) in (types.UnionType, typing.Union, list, tuple):
        return any(_is_path(part) for part in typing.get_args(kind))
    return isinstance(kind, type) and issubclass(kind, Path)
