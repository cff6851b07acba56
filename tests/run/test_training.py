"""Laws of the whole command: a folder of pictures becomes a model, once, whatever interrupts it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from taxadiffusion.config import parse
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.errors import CheckpointError, PreemptedError, SettingsError
from taxadiffusion.run import open_run, trial
from taxadiffusion.trainer import events
from taxadiffusion.trainer.loader import MicroBatches, Share, micro_batches
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.order import Order
from taxadiffusion.trainer.signals import StopSignal
from taxadiffusion.trainer.watchers import read_metrics
from taxadiffusion.trainer.world import World
from tests.tiny_clip import WIDTH, write_tiny_clip
from tests.tiny_command import invoke, run_all
from tests.tiny_run import tiny_base

SPECIES = [("Pomacentridae", "Amphiprion", "clarkii"), ("Pomacentridae", "Abudefduf", "vaigiensis")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two species in noise, eight pictures each."""
    root = tmp_path_factory.mktemp("fish")
    rng = np.random.default_rng(0)
    lines = ["file_name,order,family,genus,species"]
    for family, genus, epithet in SPECIES:
        for number in range(8):
            name = f"{genus}-{number}.png"
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(root / name)
            lines.append(f"{name},Perciformes,{family},{genus},{epithet}")
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    out = tmp_path_factory.mktemp("prepared") / "fish"
    prepare(root, out)
    return out


def values(prepared: Path, out: Path) -> dict[str, object]:
    return {
        "data": {"path": str(prepared), "ranks": ["family", "species"], "mirror": True},
        "base": {"path": str(tiny_base()), "image_size_px": 16},
        "conditioner": {"num_heads": 2, "num_layers": 1},
        "stages": {"steps": 3},
        "training": {"batch_size": 4},
        "checkpoint": {"every_steps": 2},
        "preview": {"num_taxa": 2, "num_steps": 2},
        "output": {"path": str(out), "tensorboard": False},
        "num_threads": 1,
    }


def test_pictures_become_a_model_and_the_same_command_does_it_once(prepared: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(values(prepared, tmp_path / "run")))
    code, output = invoke(config)
    assert code == 0, output
    assert "stage family" in output
    assert "stage species" in output
    run_dir = tmp_path / "run"
    card = json.loads((run_dir / "adapter" / "adapter.json").read_text())
    assert card["ranks"] == ["family", "species"]
    assert str(tmp_path) not in (run_dir / "adapter" / "README.md").read_text() + json.dumps(card["recipe"])
    assert [line["step"] for line in read_metrics(run_dir / "metrics.jsonl") if line["event"] == "StepDone"] == [
        *range(1, 7)
    ]
    assert Image.open(run_dir / "losses.png").size[0] > 100
    code, output = invoke(config)
    assert code == 0
    assert "had finished at step 6; nothing to do" in output


def test_a_stop_between_parts_leaves_at_once_and_the_run_ends_as_if_undisturbed(prepared: Path, tmp_path: Path) -> None:
    undisturbed = parse(values(prepared, tmp_path / "a"))
    run_all(undisturbed)
    disturbed = parse(values(prepared, tmp_path / "b"))
    stop = StopSignal()
    stop.number = 15
    with pytest.raises(PreemptedError, match="while"), open_run(disturbed, stop=stop, world=World()):
        pass
    stop.number = 0
    with open_run(disturbed, stop=stop, world=World()) as run:
        stream = run.trainer.run()
        while run.trainer.progress.step < 3:
            next(stream)
        stop.number = 15
        with pytest.raises(PreemptedError, match="after committing step 4"):
            list(stream)
    run_all(disturbed)
    for name in ("conditioner", "lora"):
        files = [next((tmp_path / run / "adapter").glob(f"*{name}*.safetensors"), None) for run in ("a", "b")]
        if files[0] is not None and files[1] is not None:
            assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("strategy", ["all", "random", "lora", "full", "class_embedding", "taxon_adapter", "zero_shot"])
def test_every_strategy_trains_and_its_adapter_loads(prepared: Path, tmp_path: Path, strategy: str) -> None:
    from taxadiffusion.adapter import load_adapter

    settings = parse(values(prepared, tmp_path / "run"), [f"stages.strategy={strategy}", "stages.steps=1"])
    done = run_all(settings)
    assert isinstance(done[-1], events.Finished)
    adapter = load_adapter(tmp_path / "run" / "adapter", base=str(tiny_base()))
    dataset = PreparedDataset.open(prepared)
    assert adapter.taxonomy.content_hash == dataset.taxonomy.content_hash


def test_a_base_that_is_trained_whole_is_float32_whatever_frozen_ones_are(prepared: Path, tmp_path: Path) -> None:
    """So that one configuration serves every strategy, as `reproduce` needs it."""
    for strategy, dtype in (("full", torch.float32), ("lora", torch.bfloat16)):
        chosen = ["base.dtype=bfloat16", f"stages.strategy={strategy}"]
        with open_run(parse(values(prepared, tmp_path / strategy), chosen), stop=StopSignal(), world=World()) as run:
            assert run.trainer.denoiser.backbone.dtype == dtype


def test_the_taxon_adapter_takes_its_embeddings_from_another_model_of_names(prepared: Path, tmp_path: Path) -> None:
    from taxadiffusion.adapter import load_adapter

    write_tiny_clip(tmp_path / "clip")
    chosen = [f"conditioner.taxon_encoder={tmp_path / 'clip'}", "stages.strategy=taxon_adapter", "stages.steps=1"]
    run_all(parse(values(prepared, tmp_path / "run"), chosen))
    shutil.rmtree(tmp_path / "clip")  # what it said of the taxa is in the adapter
    table = load_adapter(tmp_path / "run" / "adapter", base=str(tiny_base())).denoiser.conditioner.table
    assert table.shape[1] == WIDTH
    assert torch.allclose(table.norm(dim=1), torch.ones(len(table)), atol=1e-5)
    assert len({tuple(row) for row in table.tolist()}) == len(table)


def test_a_dry_run_tells_costs_and_writes_nothing(prepared: Path, tmp_path: Path) -> None:
    settings = parse(values(prepared, tmp_path / "run"))
    result = trial(settings, World())
    assert [cost.num_steps for cost in result.costs] == [3, 3]
    assert all(cost.seconds_per_step > 0 and cost.num_trained > 0 for cost in result.costs)
    assert result.num_images == len(PreparedDataset.open(prepared).rows("train"))
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(values(prepared, tmp_path / "run")))
    code, output = invoke(config, "--dry-run")
    assert code == 0, output
    assert all(word in output for word in ("seed: 0", "memory:", "time:", "training images"))
    assert not (tmp_path / "run").exists()


def test_faults_are_named_with_their_exit_code(prepared: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(values(prepared, tmp_path / "run")))
    assert invoke(config, "--set", "lora.rnak=1")[0] == 2
    code, message = invoke(config, "--set", "data.ranks=[kingdom]")
    assert (code, "kingdom" in message) == (2, True)
    assert invoke(config, "--set", f"data.path={tmp_path}/nowhere")[0] == 3
    assert invoke(config, "--set", f"base.path={tmp_path}/nowhere")[0] == 4
    lock = RunLock(tmp_path / "run")
    code, message = invoke(config)
    lock.release()
    assert (code, "another run holds it" in message) == (4, True)


def test_what_a_shared_base_cannot_do_is_refused(prepared: Path, tmp_path: Path) -> None:
    shared = parse(values(prepared, tmp_path / "run"), ["base.shard=true", "base.compile=true"])
    with pytest.raises(
        SettingsError, match=r"training\.merge_lora = true, base\.compile = true, preview\.num_taxa = 2"
    ):
        run_all(shared)


def test_other_settings_are_refused_with_a_diff(prepared: Path, tmp_path: Path) -> None:
    settings = parse(values(prepared, tmp_path / "run"))
    run_all(settings)
    changed = parse(values(prepared, tmp_path / "run"), ["optimiser.learning_rate=0.5", "preview.num_taxa=0"])
    with pytest.raises(SettingsError, match=r"optimiser\.learning_rate: 0\.0001 → 0\.5") as caught:
        run_all(changed)
    assert "preview" not in str(caught.value)
    assert run_all(changed, allow_change=["optimiser.learning_rate"])


def test_an_output_that_cannot_be_written_fails_before_anything_is_loaded(prepared: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = parse(values(prepared, tmp_path / "file" / "run"), ["base.path=nowhere"])
    with pytest.raises(CheckpointError, match="cannot be written"):
        run_all(settings)


@pytest.fixture(autouse=True)
def _threads_as_before() -> object:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_100_000_draws_show_the_taxon_of_their_label(tmp_path: Path) -> None:
    """Pictures whose pattern spells their species, from files through prepare, cache and loader: 0 mismatches."""
    photos = tmp_path / "photos"
    photos.mkdir()
    binomials = [f"{'ABCDEFGHI'[k // 3]}genus species{'abc'[k % 3]}" for k in range(27)]
    half = np.random.default_rng(1).integers(0, 2, (27, 4, 2, 3), dtype=np.uint8) * 255
    patterns = (
        np.concatenate([half, half[:, :, ::-1]], axis=2).repeat(4, axis=1).repeat(4, axis=2)
    )  # mirror images of themselves
    lines = ["file_name,order,family,genus,species"]
    for number in range(81):
        genus, epithet = binomials[number % 27].split()
        picture = patterns[number % 27].copy()
        picture[0, 0, 0] = number  # no two files are equal
        Image.fromarray(picture).save(photos / f"{number}.png")
        lines.append(f"{number}.png,Perciformes,{genus[:6]}idae,{genus},{epithet}")
    (photos / "metadata.csv").write_text("\n".join(lines) + "\n")
    prepare(photos, tmp_path / "prepared")
    num_draws = 0
    chosen = values(tmp_path / "prepared", tmp_path / "run")
    chosen["data"] = {"path": str(tmp_path / "prepared"), "ranks": ["genus", "species"], "mirror": True}
    with open_run(parse(chosen), stop=StopSignal(), world=World()) as run:
        data = run.trainer.data
        pixels = torch.from_numpy(np.ascontiguousarray(patterns.transpose(0, 3, 1, 2)))
        expected = run.trainer.denoiser.backbone.encode(pixels).flatten(1)  # (27, 256), past the cache
        label_of = {taxon: data.lineage_of(taxon).label for taxon in set(data.taxon_ids.tolist())}
        order = Order.balanced(5, data.train_rows, data.taxon_ids[data.train_rows], 0.5)
        for num_processes, num_workers, start in ((1, 0, 0), (1, 2, 37), (2, 0, 911), (2, 2, 0)):
            for index in range(num_processes):
                batches = MicroBatches(data.source, order, Share.of(500, 250, index, num_processes))
                accumulation = batches.share.accumulation
                stop = (start + 50) * accumulation
                for batch in micro_batches(batches, start * accumulation, stop, num_workers):
                    nearest = torch.cdist(batch.latents.flatten(1), expected).argmin(dim=1).tolist()
                    labels = [label_of[taxon] for taxon in data.taxon_ids[batch.rows].tolist()]
                    assert [binomials[k] for k in nearest] == labels
                    num_draws += len(labels)
    assert num_draws == 100_000
