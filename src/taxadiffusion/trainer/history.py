"""What a run leaves in its directory: commits, and in the end the adapter; and how it finds its way back from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from taxadiffusion import checkpoint
from taxadiffusion.checkpoint import Committed, Manifest
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.sections import RETIRED
from taxadiffusion.stages import Stage, before_last_stage
from taxadiffusion.trainer import events
from taxadiffusion.trainer.optimiser import StageOptimiser
from taxadiffusion.trainer.settings import LoopSettings
from taxadiffusion.trainer.world import World

Json = Any

ADAPTER_DIR = "adapter"


@dataclass(frozen=True, slots=True)
class Identity:
    """What two runs must share to be the same run: content hashes, and the settings that touch the trajectory."""

    hashes: dict[str, str]  # "data", "taxonomy", "base"
    settings: dict[str, Json]  # dotted key → value
    settings_hash: str
    versions: Mapping[str, str]

    def differences(self, committed: Committed, allowed: Sequence[str]) -> list[str]:
        """One line for each key whose value is another than in the commit, but for the allowed ones."""
        settings: dict[str, Json] = committed.document("settings")
        kept = {key: value for key, value in settings.items() if key not in RETIRED or value is not RETIRED[key]}
        old = {**kept, **committed.manifest.hashes}
        new = self.settings | self.hashes | {"config": old["config"]}  # the hash of settings adds nothing to them
        keys = sorted((set(old) | set(new)) - set(allowed))
        return [f"{key}: {old.get(key)} → {new.get(key)}" for key in keys if old.get(key) != new.get(key)]


@dataclass(slots=True)
class RunProgress:
    """How far a run has come: all of its state beside tensors."""

    step: int = 0
    stage: int = 0
    refused_in_a_row: int = 0
    bad_rows: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Resumption:
    progress: RunProgress
    event: events.Resumed


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run is kept, and as what. export: writes the finished adapter to the path it is given, whole or not at
    all. allow_change: keys that may differ from a commit's."""

    path: Path
    identity: Identity
    export: Callable[[Path], object]
    allow_change: Sequence[str] = ()


class RunHistory:
    """The commits of one run directory. Only the first process writes; every process learns the outcome."""

    def __init__(self, folder: RunFolder, plan: Sequence[Stage], settings: LoopSettings, world: World) -> None:
        self.run_dir = folder.path
        self.identity = folder.identity
        self.plan = plan
        self.settings = settings
        self.world = world
        self.export_to = folder.export
        self.allow_change = folder.allow_change
        self.committed: Committed | None = None

    def resume(self, trained: Mapping[str, nn.Parameter]) -> Resumption | None:
        """Find the newest good commit, check that it belongs to this run, load its parameters; None: there is none.

        Raises `CheckpointError` (commits, but none good or fitting), `SettingsError` (a setting or the data changed).
        """
        if self.world.is_first:
            checkpoint.remove_leftovers(self.run_dir)
        committed = self.world.first_does(lambda: checkpoint.latest(self.run_dir))
        if committed is None:
            return None
        _require_same(self.run_dir, self.identity, committed, self.allow_change)
        load_parameters(trained, committed)
        self.committed = committed
        document = committed.document("state")
        progress = RunProgress(**document)
        warnings = self._warnings(committed.manifest)
        return Resumption(
            progress, events.Resumed(progress.step, committed.path, committed.passed_over, tuple(warnings))
        )

    def _warnings(self, manifest: Manifest) -> list[str]:
        warnings = []
        if manifest.num_threads != torch.get_num_threads():
            warnings.append(
                f"{torch.get_num_threads()} CPU threads instead of {manifest.num_threads}: the run goes on, but "
                "not with the same bits (set num_threads to keep them)"
            )
        for name, version in self.identity.versions.items():
            if manifest.versions.get(name) != version:
                warnings.append(f"{name} {version} instead of {manifest.versions.get(name)}: bits may differ")
        return warnings

    def restore_optimiser(self, optimiser: StageOptimiser) -> None:
        """Put back moments and moving average, in the middle of a stage."""
        committed = self.committed
        if committed is None:
            raise CheckpointError(f"{self.run_dir}: no commit to restore the optimizer from")
        average = committed.tensors("ema") if optimiser.average else None
        optimiser.restore(committed.tensors("optimizer"), average)

    def commit(
        self, progress: RunProgress, trained: Mapping[str, nn.Parameter], optimiser: StageOptimiser | None
    ) -> events.CheckpointCommitted:
        """Write `step-N` and prune. `optimiser`: None between stages, where nothing of it is needed."""
        started = time.perf_counter()
        tensors: dict[str, Mapping[str, Tensor]] = {"model": {name: p.detach() for name, p in trained.items()}}
        if optimiser is not None:
            tensors |= optimiser.state()
        stage_name = self.plan[progress.stage].name if progress.stage < len(self.plan) else "finished"
        manifest = Manifest(
            step=progress.step,
            stage=progress.stage,
            stage_name=stage_name,
            seed=self.settings.seed,
            num_threads=torch.get_num_threads(),
            hashes=dict(self.identity.hashes) | {"config": self.identity.settings_hash},
            versions=dict(self.identity.versions),
        )
        documents = {"state": asdict(progress), "settings": dict(self.identity.settings)}

        def write() -> Path:
            path = checkpoint.commit(self.run_dir, tensors, documents, manifest)
            keeping = self.settings.checkpoint
            weaker = before_last_stage(self.plan) if keeping.keep_weaker else None
            checkpoint.prune(self.run_dir, path, keeping.keep_last, weaker)
            return path

        path = self.world.first_does(write)
        return events.CheckpointCommitted(progress.step, path, time.perf_counter() - started)

    def export(self, *, again: bool) -> None:
        """Write the adapter beside the commits; where there is one already, only if `again`."""
        final = self.run_dir / ADAPTER_DIR

        def write() -> None:
            if again or not final.exists():
                self.export_to(final)

        self.world.first_does(write)


def require_same_run(run_dir: Path, identity: Identity, allow_change: Sequence[str] = ()) -> None:
    """Raise what `RunHistory.resume` would raise for commits that are damaged or of another run; nothing is changed."""
    committed = checkpoint.latest(run_dir)
    if committed is not None:
        _require_same(run_dir, identity, committed, allow_change)


def _require_same(run_dir: Path, identity: Identity, committed: Committed, allow_change: Sequence[str]) -> None:
    if changed := identity.differences(committed, allow_change):
        raise SettingsError(
            f"{run_dir}: this run began with other settings or data:\n  " + "\n  ".join(changed) + "\n"
            "Set them back, choose another output, or accept each with --allow-change KEY"
        )


def load_parameters(trained: Mapping[str, nn.Parameter], committed: Committed) -> None:
    """Copy a commit's "model" into the parameters: same names, same shapes, all or nothing."""
    tensors = committed.tensors("model")
    missing, unknown = sorted(set(trained) - set(tensors)), sorted(set(tensors) - set(trained))
    if missing or unknown:
        raise CheckpointError(f"{committed.path}: parameters missing: {missing[:3]}, unknown: {unknown[:3]}")
    for name, parameter in trained.items():
        if tensors[name].shape != parameter.shape:
            raise CheckpointError(
                f"{committed.path}: {name} has shape {tuple(tensors[name].shape)}, needed {tuple(parameter.shape)}"
            )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])
