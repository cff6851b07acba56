"""Laws of the methods: one declaration each, and a new conditioner is one file and one line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from taxadiffusion.adapter import open_model
from taxadiffusion.base.text import TokenStates
from taxadiffusion.condition import methods
from taxadiffusion.condition.conditioner import Conditioner, ConditionerSettings
from taxadiffusion.condition.methods import METHODS, Method, method_named
from taxadiffusion.config import parse
from taxadiffusion.dataset import prepare
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.sampler import Request
from taxadiffusion.tables.experiments import rows_of, settings_by_strategy
from tests.tiny_command import run_all
from tests.tiny_run import tiny_base

RANKS = ("genus", "species")
SPECIES = [("Amphiprion", "clarkii"), ("Abudefduf", "vaigiensis")]


class LetterSettings(ConditionerSettings):
    kind: Literal["letters"] = "letters"


class LetterConditioner(Conditioner):
    """One token: the learned vector of the first letter of the lineage's finest name; the null has its own."""

    settings_class = LetterSettings

    def __init__(
        self,
        ranks: Sequence[Rank],
        states: TokenStates,
        settings: ConditionerSettings,
        taxa: Iterable[Lineage] = (),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__(ranks, states, settings, taxa, seed=seed)
        self.letters = nn.Parameter(torch.randn(256, states.width, generator=torch.Generator().manual_seed(seed)))

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        rows = [ord(lineage.names[-1][1][0]) % 256 if lineage.names else 0 for lineage in lineages]
        return self.letters[torch.tensor(rows)][:, None]

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:  # noqa: ARG002
        return []

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        return {"letters": dict(self.named_parameters())}


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    root.mkdir()
    rng = np.random.default_rng(0)
    lines = ["file_name,genus,species"]
    for genus, epithet in SPECIES:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(root / f"{genus}.png")
        lines.append(f"{genus}.png,{genus},{epithet}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    prepare(root, tmp_path / "prepared")
    return tmp_path / "prepared"


def test_a_new_conditioner_is_one_class_and_one_line(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set, planned, trained, saved, read, drawn from and a row of the tables; before its line, none of these."""
    values = {
        "data": {"path": str(prepared)},
        "base": {"path": str(tiny_base()), "image_size_px": 16},
        "stages": {"strategy": "letters", "steps": 1},
        "training": {"batch_size": 2, "condition_dropout": 0.0},
        "optimiser": {"learning_rate": 0.1},
        "preview": {"num_taxa": 0},
        "output": {"path": str(tmp_path / "run"), "tensorboard": False},
        "num_threads": 1,
    }
    with pytest.raises(SettingsError, match=r"stages\.strategy = 'letters': unknown strategy"):
        parse(values)
    monkeypatch.setattr(methods, "METHODS", (*METHODS, Method("letters", LetterConditioner, ("lora", "letters"))))

    run_all(parse(values))
    adapter = open_model(str(tmp_path / "run"), base=str(tiny_base()))
    conditioner = adapter.denoiser.conditioner
    assert type(conditioner) is LetterConditioner
    assert adapter.card.conditioner == LetterSettings()
    begun = LetterConditioner(RANKS, conditioner.states, LetterSettings()).letters
    learned = {row for row in range(256) if not torch.allclose(conditioner.letters[row], begun[row], rtol=0, atol=0.05)}
    assert learned == {ord("c"), ord("v")}  # of clarkii and vaigiensis
    lineage = Lineage.of(dict(zip(RANKS, SPECIES[0], strict=True)))
    (made,) = generate(adapter, [Request(lineage, 0, Guidance(2.0))], tmp_path / "drawn", Sampling(2))
    assert Image.open(made.path).size == (16, 16)

    assert "letters" in {row.name for row in rows_of("table1", RANKS, 2.0)}
    assert settings_by_strategy(["letters:lora.rank=2"]) == {"letters": ("lora.rank=2",)}
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=r"adapter\.json: conditioner: .*kind 'letters' is not known; known: tax"):
        open_model(str(tmp_path / "run"), base=str(tiny_base()))


def test_the_tables_hold_a_row_of_every_method() -> None:
    rows = [row for experiment in ("table1", "strategies") for row in rows_of(experiment, RANKS, 2.0)]
    assert {row.strategy for row in rows} == {method.name for method in METHODS}
    assert {method.row or method.name for method in METHODS} <= {row.name for row in rows}


def test_methods_and_kinds_are_told_apart_by_name() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)
    classes = {method.conditioner.settings_class for method in METHODS}
    assert len({settings.model_fields["kind"].default for settings in classes}) == len(classes)


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="unknown strategy 'progresive'; known: progressive, all, random"):
        method_named("progresive")
