"""Laws of devices: one rule chooses them, and every strategy does on another device all that it does on the CPU.

The other device is `tests.second_device`, and a real GPU where there is one: then the same tests run there as well.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from taxadiffusion.adapter import open_model, read_card
from taxadiffusion.base import device as module
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.device import chosen_device, described
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.cli import app
from taxadiffusion.condition import (
    ClassEmbeddingSettings,
    ConditionerSettings,
    PromptSettings,
    TaxonAdapterSettings,
    TaxonomySettings,
)
from taxadiffusion.condition.methods import METHODS, build_conditioner, method_named
from taxadiffusion.config import Settings, parse, to_yaml
from taxadiffusion.dataset import prepare
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.errors import PreemptedError, SettingsError
from taxadiffusion.evaluate.evaluation import Networks
from taxadiffusion.evaluate.image_plan import ImagePlan
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.pictures.png import read_picture
from taxadiffusion.pipeline import TaxaDiffusionPipeline
from taxadiffusion.report.command import Extractors, Measured, evaluate_command
from taxadiffusion.run import open_run, standard_watchers
from taxadiffusion.sampler import Request
from taxadiffusion.stages import plan
from taxadiffusion.tables.reproduction import Options, Reproduction
from taxadiffusion.trainer import events
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.watchers import read_metrics, watched
from taxadiffusion.trainer.world import World
from tests.second_device import second_device
from tests.thumbnails import Thumbnails
from tests.tiny_clip import write_tiny_clip
from tests.tiny_run import tiny_base

RANKS = ("family", "species")
SPECIES = (("Pomacentridae", "Amphiprion", "clarkii"), ("Zanclidae", "Zanclus", "cornutus"))
STRATEGIES = tuple(method.name for method in METHODS)
NUM_STEPS = 2  # of every stage


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@contextmanager
def _gpu() -> Iterator[torch.device]:
    yield torch.device("cuda", 0)


on_devices = pytest.mark.parametrize(
    "elsewhere",
    [
        pytest.param(second_device, id="second"),
        pytest.param(
            _gpu, id="cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
        ),
    ],
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two species in noise of their own brightness: some photographs in each split."""
    root, rng = tmp_path_factory.mktemp("fish"), np.random.default_rng(0)
    lines = ["file_name,split,family,genus,species"]
    for number, (family, genus, epithet) in enumerate(SPECIES):
        for split, count in (("train", 10), ("val", 3), ("test", 6)):
            for index in range(count):
                name = f"{epithet}-{split}-{index}.png"
                pixels = rng.integers(100 * number, 156 + 100 * number, (20, 20, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / name)
                lines.append(f"{name},{split},{family},{genus},{epithet}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path_factory.mktemp("prepared") / "fish"
    prepare(root, out, num_workers=1)
    return out


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip")
    write_tiny_clip(path)
    return path


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Latents and name states, computed once on the CPU."""
    return tmp_path_factory.mktemp("caches")


def settings_of(strategy: str, prepared: Path, out: Path, caches: Path, *more: str) -> Settings:
    """The best recipe with everything that touches a device: min-SNR, validation, previews, a moving average."""
    return parse(
        {
            "recipe": "best",
            "data": {"path": str(prepared), "ranks": list(RANKS), "cache_dir": str(caches)},
            "base": {"path": str(tiny_base()), "image_size_px": 16},
            "conditioner": {"num_heads": 2, "num_layers": 1, "feed_forward": 16, "dropout": 0.1},
            "lora": {"rank": 2, "alpha": 2},
            "stages": {"strategy": strategy, "steps": NUM_STEPS},
            "optimiser": {"learning_rate": 1e-3, "warmup_steps": 0},
            "training": {
                "batch_size": 4,
                "micro_batch_size": 2 if strategy == "progressive" else 4,
                "min_snr_gamma": 5.0,
            },
            "validation": {"every_steps": 2, "num_samples": 4},
            "checkpoint": {"every_steps": 2},
            "preview": {"num_taxa": 2, "num_steps": 1, "every_steps": 4},
            "output": {"path": str(out), "tensorboard": False},
            "num_threads": 1,
        },
        more,
    )


def trained_on(device: torch.device, settings: Settings, *, stop_at: int | None = None) -> list[events.Event]:
    """All that a run reports; with `stop_at` it is pre-empted there and goes on."""
    stop, world = StopSignal(), World(device=device)
    seen: list[events.Event] = []
    if stop_at is not None:
        with open_run(settings, stop=stop, world=world) as run:
            stream = watched(run.trainer.run(), standard_watchers(run))
            while not (seen and isinstance(seen[-1], events.StepDone) and seen[-1].step == stop_at):
                seen.append(next(stream))
            stop.number = signal.SIGTERM
            with pytest.raises(PreemptedError):
                seen.extend(stream)
        stop.number = 0
    with open_run(settings, stop=stop, world=world) as run:
        seen += watched(run.trainer.run(), standard_watchers(run))
    return seen


def weights(run_dir: Path) -> dict[str, Tensor]:
    """Every tensor of the adapter that a run has written."""
    from safetensors.torch import load_file

    return {f"{p.name}/{k}": v for p in (run_dir / "adapter").glob("*.safetensors") for k, v in load_file(p).items()}


# The rule


def test_auto_is_the_fastest_that_is_there_and_what_is_asked_for_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for there, best in ((("cuda", "mps", "cpu"), "cuda:0"), (("mps", "cpu"), "mps"), (("cpu",), "cpu")):
        monkeypatch.setattr(module, "present", lambda there=there: there)
        assert str(chosen_device()) == best
        assert str(chosen_device("cpu")) == "cpu"
        assert str(chosen_device(cpu_only="--engine onnxruntime")) == "cpu"
    with pytest.raises(SettingsError, match=r"--device cuda: torch .* sees no such device here, only cpu; choose"):
        chosen_device("cuda")
    with pytest.raises(SettingsError, match="--engine onnxruntime computes on a CPU alone, not with --device mps"):
        chosen_device("mps", cpu_only="--engine onnxruntime")
    with pytest.raises(SettingsError, match="'gpu' is none of auto, cpu, cuda, mps"):
        chosen_device("gpu")


def test_every_process_of_a_machine_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "present", lambda: ("cuda", "cpu"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert chosen_device() == torch.device("cuda", rank)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(SettingsError, match="process 3 of this machine has no GPU of its own, there are 2"):
        chosen_device()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # what `accelerate launch --cpu` says
    assert chosen_device() == torch.device("cpu")


def test_a_device_that_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("accelerate.PartialState", lambda **_: SimpleNamespace(process_index=1, num_processes=2))
    with pytest.raises(SettingsError, match="2 processes cannot share mps: start one, or --device cpu"):
        World.join(1, torch.device("mps"))
    assert World.join(1, torch.device("cpu")) == World(1, 2, torch.device("cpu"))
    assert described(torch.device("mps")) == "mps"


def test_every_command_that_computes_has_the_one_option() -> None:
    group = typer.main.get_command(app)
    for name in ("train", "generate", "evaluate", "reproduce", "demo"):
        option = next(p for p in group.commands[name].params if p.name == "device")  # type: ignore[attr-defined]
        assert (option.opts, option.default) == (["--device"], "auto"), name
        told = CliRunner().invoke(app, [name, "--help"], env={"COLUMNS": "200"}).output
        assert "|".join(module.DEVICE_NAMES) in told, name


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "{config}"),
        ("train", "{config}", "--dry-run"),
        ("generate", "reef-fish", "Zanclidae"),
        ("evaluate", "folder", "--data", "{prepared}"),
        ("reproduce", "table1", "--config", "{config}", "--out", "{out}"),
        ("demo", "--out", "{out}"),
    ],
    ids=" ".join,
)
def test_a_device_that_is_not_there_is_one_error_before_anything_is_made(
    arguments: tuple[str, ...], prepared: Path, caches: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(to_yaml(settings_of("lora", prepared, tmp_path / "run", caches)))
    given = [part.format(config=config, prepared=prepared, out=tmp_path / "out") for part in arguments]
    result = CliRunner().invoke(app, [*given, "--device", "cuda"])
    assert isinstance(result.exception, SettingsError), result.output
    assert result.exception.exit_code == 2
    assert "--device cuda: torch" in str(result.exception)
    assert not list(tmp_path.rglob("*.png"))
    assert not list(tmp_path.rglob("step-*"))


# Shapes alone


@pytest.mark.parametrize(
    ("settings", "strategy"),
    [
        (TaxonomySettings(num_heads=2, feed_forward=16), "progressive"),
        (PromptSettings(num_parts=2), "lora"),
        (PromptSettings(), "full"),
        (ClassEmbeddingSettings(), "class_embedding"),
        (TaxonAdapterSettings(), "taxon_adapter"),
        (TaxonAdapterSettings(embedding_width=8), "taxon_adapter"),
    ],
)
def test_a_model_on_meta_takes_token_states_from_the_cpu(settings: ConditionerSettings, strategy: str) -> None:
    lineages = [Lineage.of({"family": family, "species": epithet}) for family, _, epithet in SPECIES]
    backbone = Backbone.load(str(tiny_base()))
    states = SimpleNamespace(width=backbone.width, num_tokens=6, content_hash="")
    kept = type("Kept", (SimpleNamespace,), {"__call__": lambda self, texts: torch.zeros(len(texts), 6, self.width)})
    if strategy == "taxon_adapter":
        backbone.add_decoupled_attention(4)
    elif strategy != "full":
        backbone.add_lora(LoRASettings(rank=2))
    conditioner = build_conditioner(settings, RANKS, kept(**vars(states)), lineages)
    denoiser = Denoiser(backbone, conditioner, full_unet=strategy == "full", min_snr_gamma=5.0).to("meta")
    denoiser.prepare_stage(plan(method_named(strategy), RANKS, 1)[0])
    latents = torch.zeros(3, *backbone.latent_shape, device="meta")
    batch = Batch(latents, [*lineages, Lineage()], latents, torch.zeros(3, dtype=torch.long, device="meta"))
    denoiser(batch).mean().backward()
    assert denoiser.conditioner.distinct(lineages).rows.device.type == "meta"


# All of it, elsewhere


@on_devices
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_run_elsewhere_is_the_run_on_the_cpu(
    strategy: str, elsewhere: object, prepared: Path, caches: Path, tmp_path: Path
) -> None:
    """Steps, validation, previews, commits, a pre-emption and going on; then the model draws and is measured."""
    exact = elsewhere is second_device  # a GPU rounds otherwise, has masks of dropout of its own, and is read late
    more = () if exact else ("conditioner.dropout=0",)
    here = trained_on(torch.device("cpu"), settings_of(strategy, prepared, tmp_path / "cpu", caches, *more))
    settings = settings_of(strategy, prepared, tmp_path / "there", caches, *more)
    trains = strategy != "zero_shot"
    with elsewhere() as device:  # type: ignore[operator]
        there = trained_on(device, settings, stop_at=2 if trains else None)
        model = open_model(str(tmp_path / "there"), base=str(tiny_base()), dtype=torch.float32, device=device)
        assert {p.device for p in model.denoiser.parameters()} == {device}
        requests = [
            Request(Lineage.of({"family": SPECIES[0][0]}), 1, Guidance(3.0)),
            Request(Lineage(), 2, Guidance(3.0)),
        ]
        drawn = [read_picture(made.path) for made in generate(model, requests, tmp_path / "drawn", Sampling(2))]
    for kind in (events.Validated, events.CheckpointCommitted, events.PreviewDue):
        assert any(isinstance(event, kind) for event in there) == trains, kind
    assert any(isinstance(event, events.Resumed) for event in there) == trains
    for kind in (events.StepDone, events.Validated):
        numbers = [{e.step: e.loss for e in seen if isinstance(e, kind)} for seen in (here, there)]
        assert numbers[0].keys() == numbers[1].keys() or not exact
        for step in numbers[0].keys() & numbers[1].keys():
            assert numbers[0][step] == pytest.approx(numbers[1][step], rel=1e-4 if exact else 0.03), (kind, step)
    expected, found = weights(tmp_path / "cpu"), weights(tmp_path / "there")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        # Adam's first steps are as large as the rate wherever a gradient is not zero, whichever way rounding turns it.
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5 if exact else 1e-2, msg=name)
    own = open_model(str(tmp_path / "there"), base=str(tiny_base()))
    for picture, made in zip(drawn, generate(own, requests, tmp_path / "own", Sampling(2)), strict=True):
        difference = np.abs(picture.astype(int) - read_picture(made.path))
        assert difference.max() <= 2 if exact else difference.mean() <= 8


@on_devices
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reproduce_trains_and_draws_there(
    strategy: str, elsewhere: object, prepared: Path, caches: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    experiment = "strategies" if method_named(strategy).row else "table1"
    chosen = method_named(strategy).row or strategy
    used: list[torch.device] = []
    predict = Backbone.forward
    monkeypatch.setattr(
        Backbone, "forward", lambda self, noisy, *rest: used.append(noisy.device) or predict(self, noisy, *rest)
    )
    with elsewhere() as device:  # type: ignore[operator]
        options = Options(seeds=(0,), per_taxon=6, num_steps=1, size_px=16, methods=(chosen,), device=str(device))
        config = settings_of(
            strategy, prepared, tmp_path / "unused", caches, "stages.steps=1", "validation.every_steps=0"
        )
        asked = Reproduction(config, tmp_path, options)
        story = asked.run((experiment,), Networks(Thumbnails()), StopSignal(), lambda _: None)  # type: ignore[arg-type]
        assert set(asked.seconds(asked.plan((experiment,)))) == {f"{strategy}-seed0"}  # type: ignore[arg-type]
    assert set(used) == {device}
    assert list(story.results[experiment].methods) == [chosen]  # type: ignore[index]


@on_devices
def test_evaluate_draws_and_looks_there(
    elsewhere: object, prepared: Path, caches: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a model of names, whose embeddings fill the adapter's table; features and alignment by the same network."""
    import torchvision

    with torch.device("meta"):
        trunk = torchvision.models.alexnet(weights=None).features
    state = {f"features.{name}": 0.02 * torch.randn(like.shape) for name, like in trunk.state_dict().items()}
    torch.save(state, tmp_path / "alexnet.pth")
    monkeypatch.setattr(
        "lpips.pretrained_networks.tv.alexnet", lambda **_: SimpleNamespace(features=trunk.to_empty(device="cpu"))
    )
    with elsewhere() as device:  # type: ignore[operator]
        encoder = f"conditioner.taxon_encoder={clip}"
        settings = settings_of("taxon_adapter", prepared, tmp_path / "run", caches, "stages.steps=1", encoder)
        trained_on(device, settings)
        asked = Measured(
            [f"ours={tmp_path / 'run'}"],
            prepared,
            ImagePlan(6, sampling=Sampling(1)),
            ranks=list(RANKS),
            base=str(tiny_base()),
            size_px=32,
        )
        extractors = Extractors(["bioclip"], [clip], tmp_path / "alexnet.pth", str(device))
        results = evaluate_command(asked, tmp_path / "out", extractors)
    assert {"alignment", "lpips_to_real", "frechet_distance"} <= set(results.methods["ours"][0].metrics)
    assert results.models == {"ours": (read_card(tmp_path / "run" / "adapter").content_hash,)}


@on_devices
def test_caches_frozen_precision_and_the_pipeline_elsewhere(elsewhere: object, prepared: Path, tmp_path: Path) -> None:
    """Latents and name states computed there, a base in bfloat16, and diffusers' way to draw."""
    with elsewhere() as device:  # type: ignore[operator]
        half = settings_of(
            "progressive", prepared, tmp_path / "half", tmp_path / "c", "base.dtype=bfloat16", "stages.steps=1"
        )
        assert isinstance(trained_on(device, half)[-1], events.Finished)
        pipeline = TaxaDiffusionPipeline.from_pretrained(tmp_path / "half", base=str(tiny_base()), device=device)
        pipeline.set_progress_bar_config(disable=True)
        images = pipeline("Zanclidae", num_inference_steps=1, output_type="pt").images
        assert images.shape == (1, 3, 16, 16)
        pipeline.export_prompt_embeds(tmp_path / "embeds.safetensors", ["Zanclidae"])
    assert len(read_metrics(tmp_path / "half" / "metrics.jsonl")) > 2
