"""What a section of a run's settings is: typed, frozen, unknown keys fail; each stands beside what reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from taxadiffusion.files import user_path, user_text


class SettingsSection(BaseModel):
    """A part of a run's settings."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def free(default: Any, description: str, **limits: Any) -> Any:
    """A setting that does not touch the trajectory: it may change between a run and its resumption."""
    return Field(default=default, description=description, json_schema_extra={"trajectory": False}, **limits)


def later(default: Any, description: str, **limits: Any) -> Any:
    """A setting that earlier versions did not have: written where it is changed alone, so that their runs go on."""
    return Field(default=default, description=description, json_schema_extra={"trajectory": "where changed"}, **limits)


RETIRED: Mapping[str, bool] = {"conditioner.zero_init": False, "conditioner.warm_start": False}
"""Settings of earlier versions that are gone, and the value with which their files are read and their runs go on."""


def _path(value: Any) -> Any:
    """A path as it was written; a number or a truth value is none, whatever YAML makes of it."""
    if value is None or isinstance(value, Path):
        return value
    if not isinstance(value, str):
        raise ValueError("a path is text: write it in quotes")
    return user_path(value)


UserPath = Annotated[Path, BeforeValidator(_path)]
OptionalPath = Annotated[Path | None, BeforeValidator(_path)]
UserText = Annotated[str, BeforeValidator(lambda value: user_text(value) if isinstance(value, str) else value)]
"""A path, or another name of what is wanted."""
