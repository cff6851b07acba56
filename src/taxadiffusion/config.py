"""Typed settings of a run: a recipe's defaults, under a YAML file, under `--set key=value`; unknown keys fail."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, ValidationError

from taxadiffusion.adapter import StartSettings, settings_of
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.condition.methods import ConditionSection, Method, method_named
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Rank, ordered_ranks
from taxadiffusion.sections import RETIRED, OptionalPath, SettingsSection, UserPath, UserText, free
from taxadiffusion.trainer.settings import LoopSettings, Seeded, TrackerName

Json = Any

_LONGEST_SHOWN = 200  # characters of a wrong value


def _ranks_in_order(ranks: tuple[Rank, ...] | None) -> tuple[Rank, ...] | None:
    if ranks is not None and (not ranks or ordered_ranks(ranks) != ranks):
        raise ValueError(f"ranks run coarse to fine, without repeats: {', '.join(ordered_ranks(ranks))}")
    return ranks


def _each_once(names: tuple[TrackerName, ...]) -> tuple[TrackerName, ...]:
    if len(set(names)) < len(names):
        raise ValueError("names a tracker twice")
    return names


class DataSettings(SettingsSection):
    path: UserPath = free(Path("prepared"), "the prepared data set (output of `prepare`)")
    root: OptionalPath = free(None, "where the photographs are now; none: where they were when they were prepared")
    ranks: Annotated[tuple[Rank, ...] | None, AfterValidator(_ranks_in_order)] = Field(
        default=None, description="ranks to train, coarse to fine; none: all of the data set"
    )
    fit: Literal["crop", "pad", "box"] = Field(default="crop", description="how an image becomes square, aspect kept")
    mirror: bool = Field(default=False, description="also train on the mirror image")
    cache_dir: OptionalPath = free(None, "where latents and name states are kept; none: below the output directory")


class BaseSettings(SettingsSection):
    path: UserText = free(SHIPPED_BASE, f"a diffusers pipeline: local path, hub id, or the shipped `{SHIPPED_BASE}`")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of frozen weights; strategy full: of the arithmetic (autocast)"
    )
    shard: bool = free(False, "share the frozen weights among the processes (FSDP2), for a base too large for one")
    compile: bool = Field(default=False, description="torch.compile in training: faster after minutes of building")
    num_tokens: int | None = Field(default=None, ge=3, description="tokens of a name; none: all of the base's (paper)")
    image_size_px: int | None = Field(default=None, ge=8, description="none: the base's own")


def _known_method(name: str) -> str:
    try:
        return method_named(name).name
    except SettingsError as error:
        raise ValueError(str(error)) from error


class StageSettings(SettingsSection):
    strategy: Annotated[str, AfterValidator(_known_method)] = Field(
        default="progressive", description="one stage per rank (paper), or one stage for everything"
    )
    steps: int | dict[Rank, int] = Field(
        default=1000,
        description="optimizer steps of each stage: a number, or rank → it (going on: 0 leaves a stage out)",
    )
    lora_in_every_stage: bool = Field(
        default=False, description="train the LoRA in every stage (paper: in the first alone)"
    )
    encoders_in_every_stage: bool = Field(
        default=False, description="go on training the encoders of the ranks above (paper: frozen)"
    )


class OutputSettings(SettingsSection):
    path: UserPath = free(Path("runs/run"), "the run directory")
    tensorboard: bool = free(True, "write event files, where tensorboard is installed")
    trackers: Annotated[tuple[TrackerName, ...], AfterValidator(_each_once)] = free(
        (), "tell these how it goes, each of which must be installed: tensorboard, wandb"
    )


class SearchSettings(SettingsSection):
    """What `reproduce --search` tries for every method; a training reads none of it."""

    learning_rate_factors: tuple[Annotated[float, Field(gt=0)], ...] = free(
        (0.3, 1.0, 3.0), "learning rates to try, as multiples of a method's own", min_length=1
    )
    name_gains: tuple[Annotated[float, Field(gt=0, le=100)], ...] = free(
        (1.0, 6.0), "name gains to try where a method reads names", min_length=1
    )
    budget: float = free(0.25, "share of each stage's steps that a try gets", gt=0, le=1)


class _Named(SettingsSection):
    recipe: Literal["paper", "sd15", "best"] = Field(
        default="paper", description="a named set of defaults; every key overrides it"
    )
    output: OutputSettings = OutputSettings()
    start: StartSettings = StartSettings()


class _Objects(SettingsSection):
    """What a run is made of, before its loop."""

    num_threads: int | None = free(None, "CPU threads; none: as the machine. Bits depend on it", ge=1)
    timeout_s: int = free(1800, "how long a process waits for the others before it gives up", ge=1)
    data: DataSettings = DataSettings()
    base: BaseSettings = BaseSettings()
    conditioner: ConditionSection = ConditionSection()
    lora: LoRASettings = LoRASettings()
    stages: StageSettings = StageSettings()


class Settings(LoopSettings, _Objects, Seeded, _Named):
    """Everything a run depends on. `taxadiffusion train CONFIG --dry-run` prints it filled in, the last base first."""

    search: SearchSettings = SearchSettings()

    @property
    def method(self) -> Method:
        """What the strategy is."""
        return method_named(self.stages.strategy)


RECIPES: Mapping[str, Mapping[str, Json]] = {
    "paper": {},  # the defaults above are the paper's
    "sd15": {  # the paper's, on the paper's base: one 24 GB GPU or more
        "base": {"path": "stable-diffusion-v1-5/stable-diffusion-v1-5", "dtype": "bfloat16", "image_size_px": 512},
        "stages": {"steps": 20_000},
        "training": {"batch_size": 64},
        "checkpoint": {"every_steps": 1000},
        "validation": {"every_steps": 2000},
        "num_workers": 4,
    },
    "best": {
        "conditioner": {"name_gain": 6.0, "dropout": 0.0, "norm_first": True},
        "lora": {"rank": 32, "alpha": 32},
        "stages": {"lora_in_every_stage": True},
        "optimiser": {
            "learning_rate": 2e-3, "schedule": "cosine", "warmup_steps": 10, "final_fraction": 0.05, "ema_decay": 0.995,
        },
        "training": {"timesteps": "stratified", "balance": 0.5, "condition_dropout_later": 0.1},
        "data": {"mirror": True},
    },
}  # fmt: skip


class _Yaml(yaml.SafeLoader):
    """YAML without dates: 2026-11-27 is the name of a folder, and nothing here is a date."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as the base class has it
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _read_yaml(text: str) -> Json:
    loader = _Yaml(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def load(path: Path, assignments: Sequence[str] = ()) -> Settings:
    """Settings from a YAML file and `key=value` strings (`stages.strategy=all`; values are YAML scalars or lists).

    Raises `SettingsError` naming file, key, value and, for an unknown key, the nearest known one.
    """
    try:
        value = _read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    return parse({} if value is None else value, assignments, source=str(path))


def parse(value: Json, assignments: Sequence[str] = (), *, source: str = "settings") -> Settings:
    """The same from a value already read; `source` stands in the messages."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{source}: must be a table of sections, got {type(value).__name__}")
    given = _without_retired(_merged(value, _assigned(assignments)), source)
    start = given.get("start")
    adapter = start.get("adapter") if isinstance(start, Mapping) else None
    below = settings_of(adapter) if isinstance(adapter, str) else {}
    recipe = given.get("recipe", below.get("recipe", "paper"))
    if not isinstance(recipe, str) or recipe not in RECIPES:
        raise SettingsError(f"{source}: recipe: unknown {recipe!r}; known: {', '.join(RECIPES)}")
    try:
        if not below or "recipe" in given:
            below = _merged(below, RECIPES[recipe])
        return Settings.model_validate(_merged(below, given))
    except ValidationError as error:
        raise SettingsError("\n".join(_message(source, fault) for fault in error.errors())) from error


def changed(settings: Settings, assignments: Sequence[str], *, source: str) -> Settings:
    """The same with `key=value` strings over it; its recipe is no more consulted, for every key has its value."""
    return parse(json.loads(settings.model_dump_json()), assignments, source=source) if assignments else settings


def given(**options: str | Path | None) -> list[str]:
    """`key=value` for each option that was given, quoted so that the value is read back as the text it is."""
    return [f"{key}={json.dumps(str(value))}" for key, value in options.items() if value is not None]


def flattened(settings: Settings, *, trajectory_only: bool = False) -> dict[str, Json]:
    """Dotted key → JSON value. With `trajectory_only`: the keys that two runs of equal weights must share."""
    flat: dict[str, Json] = {}

    def visit(section: BaseModel, prefix: str) -> None:
        for name, info in type(section).model_fields.items():
            value = getattr(section, name)
            extra = info.json_schema_extra
            trajectory = extra.get("trajectory") if isinstance(extra, dict) else None
            if isinstance(value, BaseModel):
                visit(value, f"{prefix}{name}.")
            elif trajectory_only and (trajectory is False or (trajectory == "where changed" and value == info.default)):
                continue
            else:
                flat[prefix + name] = json.loads(json.dumps(value, default=str))

    visit(settings, "")
    return flat


def to_yaml(settings: Settings) -> str:
    """The settings in full, as a file that `load` reads back to the same value."""
    return yaml.safe_dump(json.loads(settings.model_dump_json()), sort_keys=False, allow_unicode=True)


def _merged(below: Mapping[str, Json], above: Mapping[str, Json]) -> dict[str, Json]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if (
            isinstance(under, Mapping) and isinstance(value, Mapping) and key != "steps"
        ):  # `steps` is a value: whole or not
            value = _merged(under, value)
        merged[key] = value
    return merged


def _without_retired(given: dict[str, Json], source: str) -> dict[str, Json]:
    """Without settings that are gone, which a file of an earlier version may hold as off. Raises `SettingsError`."""
    for key, off in RETIRED.items():
        section, name = key.split(".")
        values = given.get(section)
        if isinstance(values, Mapping) and name in values:
            if values[name] is not off:
                raise SettingsError(f"{source}: {key} is gone: it showed no gain (docs/log.md); leave it out")
            given = given | {section: {other: value for other, value in values.items() if other != name}}
    return given


def _assigned(assignments: Sequence[str]) -> dict[str, Json]:
    value: dict[str, Json] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {assignment!r}: write it as key=value, e.g. stages.strategy=all")
        try:
            leaf = _read_yaml(text)
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            raise SettingsError(f"--set {assignment!r}: the value is not readable as YAML") from error
        for part in reversed(key.strip().split(".")):
            leaf = {part: leaf}
        value = _merged(value, leaf)
    return value


def _message(source: str, fault: Mapping[str, Any]) -> str:
    location = [str(part) for part in fault["loc"]]
    key = ".".join(location)
    if fault["type"] == "extra_forbidden":
        model: type[BaseModel] = Settings
        for part in location[:-1]:
            annotation = model.model_fields[part].annotation
            assert isinstance(annotation, type)
            assert issubclass(annotation, BaseModel)
            model = annotation
        nearest = difflib.get_close_matches(location[-1], model.model_fields, n=1, cutoff=0.0)
        known = ", ".join(model.model_fields)
        return f"{source}: {key}: unknown key; did you mean {nearest[0]!r}? Known here: {known}"
    given = repr(fault["input"])
    given = given if len(given) <= _LONGEST_SHOWN else f"{given[:_LONGEST_SHOWN]}…"
    return f"{source}: {key} = {given}: {fault['msg'].removeprefix('Value error, ')}"
