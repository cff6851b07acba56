"""Laws of the command line's options: one that several commands have is declared once, with one default, and each
command lies in the file of its name."""

from __future__ import annotations

import inspect
import typing
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from typer.models import OptionInfo

from taxadiffusion.cli import app


def declared() -> Iterator[tuple[str, str, OptionInfo, Any]]:
    """(command, parameter, declaration, default) of every option."""
    for command in app.registered_commands:
        assert command.callback is not None
        parameters = inspect.signature(command.callback).parameters
        for name, hint in typing.get_type_hints(command.callback, include_extras=True).items():
            for info in getattr(hint, "__metadata__", ()):
                if isinstance(info, OptionInfo):
                    yield command.callback.__name__, name, info, parameters[name].default


def test_no_option_is_declared_twice() -> None:
    places: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, name, info, _ in declared():
        assert info.help, f"{command}: {name} has no help"
        places[info.help][id(info)].append(f"{command}: {name}")
    assert len(places) > 40
    assert {text: list(again.values()) for text, again in places.items() if len(again) > 1} == {}


def test_an_option_has_one_default_in_every_command() -> None:
    defaults: dict[int, dict[str, Any]] = defaultdict(dict)
    for command, name, info, default in declared():
        defaults[id(info)][f"{command}: {name}"] = default
    shared = [of_each for of_each in defaults.values() if len(of_each) > 1]
    assert len(shared) > 12
    assert [of_each for of_each in shared if len(set(of_each.values())) > 1] == []


def test_a_command_lies_in_the_file_of_its_name() -> None:
    for command in app.registered_commands:
        assert command.callback is not None
        assert command.callback.__module__ == f"taxadiffusion.cli.{command.callback.__name__}"
