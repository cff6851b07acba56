"""Laws of values: what is handed around cannot be changed, and settings take no key that nobody reads."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

import pytest
from pydantic import BaseModel

import taxadiffusion

PACKAGE = Path(taxadiffusion.__file__).parent
LAYERS = (
    "guidance.py",
    "denoiser.py",
    "base/lora.py",
    "condition/*.py",
    "trainer/*.py",
    "metrics/*.py",
    "evaluate/*.py",
)
GROWING = {"RunProgress", "_Blank"}
"""What a run, or the estimate of its memory, fills while it goes."""


def modules_with(word: str) -> list[str]:
    files = [path for pattern in LAYERS for path in sorted(PACKAGE.glob(pattern)) if word in path.read_text()]
    return [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in files]


def classes_of(module: str) -> list[type]:
    found = vars(importlib.import_module(module)).values()
    return [value for value in found if isinstance(value, type) and value.__module__ == module]


@pytest.mark.parametrize("module", modules_with("@dataclass"))
def test_dataclasses_are_frozen(module: str) -> None:
    values = [value for value in classes_of(module) if dataclasses.is_dataclass(value)]
    assert values
    for value in values:
        assert value.__dataclass_params__.frozen or value.__name__ in GROWING, value  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", modules_with("ConfigDict"))
def test_settings_are_frozen_and_forbid_other_keys(module: str) -> None:
    models = [value for value in classes_of(module) if issubclass(value, BaseModel)]
    assert models
    for model in models:
        assert model.model_config.get("frozen"), model
        assert model.model_config.get("extra") == "forbid", model
