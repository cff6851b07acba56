"""Laws of the benchmark: both sides compute the same, and one that does not is refused. No time is judged."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from benchmarks import ancestors, budget, drawn, evaluate, timing
from benchmarks.budget import OutOfTimeError, within
from benchmarks.compare import FULL_GUIDANCE, NotTheSameError, begin_alike, check_pictures, compare
from benchmarks.ours import OurStep, build_caches, our_pictures
from benchmarks.peers import DiffusersLoRAStep, PublishedStep, published_pictures
from benchmarks.scale import SimulatedLatents, measure_images, measure_taxa
from benchmarks.timing import Calibration, calibrate, interleaved
from benchmarks.trust import halved
from benchmarks.workload import Workload, without_dropout
from diffusers import UNet2DConditionModel

from taxadiffusion.adapter import Adapter, load_adapter, save_adapter
from taxadiffusion.condition import TaxonomySettings
from taxadiffusion.errors import DataError
from taxadiffusion.guidance import Guidance
from taxadiffusion.pictures.generate import Sampling
from taxadiffusion.simulate import MEASURANDS, Clade, TraitMeter, ancestor_truth, species_spread
from tests.second_device import second_device
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import IMAGE_PX, write_tiny_base


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    base = write_tiny_base(tmp_path_factory.mktemp("base"), "epsilon")
    return Workload(
        "", str(base), IMAGE_PX, 4, torch.float32, TaxonomySettings(num_layers=1, num_heads=2, feed_forward=32),
        num_pictures=2, num_steps=2, num_taxa_sampled=2, sampling_batch=2, end_to_end_share=1 / 400,
    )  # fmt: skip


@pytest.fixture
def sides(workload: Workload, tmp_path: Path) -> tuple[PublishedStep, OurStep]:
    build_caches(workload, tmp_path, None)
    return PublishedStep(workload), OurStep(workload, tmp_path)


def test_the_quick_benchmark_gives_every_ratio(workload: Workload, tmp_path: Path) -> None:
    found = compare(workload, tmp_path, 1, time.process_time)
    names = {ratio.name for ratio in found.ratios}
    assert names >= {
        "train_stage0_vs_published",
        "train_last_stage_vs_published",
        "train_stage0_vs_diffusers_lora",
        "sample_vs_published",
        "sample_vs_diffusers",
        "end_to_end",
    }
    assert all(ratio.low <= ratio.ratio <= ratio.high for ratio in found.ratios)
    assert set(found.rooflines) == {"class", "species"}


@pytest.mark.parametrize("index", [0, -1])
def test_the_cached_step_has_the_loss_and_the_gradients_of_the_plain_one(
    workload: Workload, sides: tuple[PublishedStep, OurStep], index: int
) -> None:
    """Within what float16 caches leave: 0.2 % of the loss, 1 % of the gradient's norm."""
    published, ours = sides
    begin_alike(published, ours, workload.stages()[index])
    gradients = []
    for step in (published, ours):
        with without_dropout(step.denoiser):
            step.loss().backward()
        trained = {name: p for name, p in step.denoiser.named_parameters() if p.grad is not None}
        gradients.append({name: p.grad.clone() for name, p in trained.items() if p.grad is not None})
    plain, cached = gradients
    assert plain.keys() == cached.keys()
    assert plain
    difference = torch.cat([(plain[name] - cached[name]).flatten() for name in plain]).norm()
    assert difference < 0.01 * torch.cat([plain[name].flatten() for name in plain]).norm()


def test_sides_that_do_not_compute_the_same_are_refused(
    workload: Workload, sides: tuple[PublishedStep, OurStep]
) -> None:
    published, ours = sides
    published.noise = published.noise + 1.0
    with pytest.raises(NotTheSameError, match="do not compute the same"):
        begin_alike(published, ours, workload.stages()[0])


def test_both_sides_train_and_draw_on_another_device(workload: Workload, tmp_path: Path) -> None:
    with second_device() as device:
        there = dataclasses.replace(workload, device=str(device))
        build_caches(there, tmp_path, None)
        published, ours = PublishedStep(there), OurStep(there, tmp_path)
        begin_alike(published, ours, there.stages()[-1])
        lora = DiffusersLoRAStep(there, there.backbone(there.precision))
        assert all(np.isfinite(step()) for step in (published, ours, lora))
        begin_alike(published, ours, there.stages()[-1])
        requests = there.requests(FULL_GUIDANCE)
        theirs = published_pictures(published, requests, 2)
        check_pictures("there", theirs, [s.image for s in our_pictures(ours, requests, 2)], there.precision)


def test_a_ratio_is_the_peers_time_over_ours() -> None:
    clock = iter([0.0, 3.0, 10.0, 11.0, 20.0, 23.0, 30.0, 31.0])
    ratio = interleaved("x", lambda: None, lambda: None, 2, lambda: next(clock))
    assert (ratio.ratio, ratio.low, ratio.high, ratio.peer_s, ratio.ours_s) == (3.0, 3.0, 3.0, 3.0, 1.0)


def test_a_loaded_machine_is_told_from_a_free_one() -> None:
    free = Calibration(seconds=1.0, spread=1.02, cpu_share=0.99)
    assert free.quiet
    assert not dataclasses.replace(free, cpu_share=0.5).quiet
    assert not dataclasses.replace(free, spread=1.6).quiet


def test_a_hiccup_is_not_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    free = Calibration(seconds=1.0, spread=1.02, cpu_share=0.99)
    busy = dataclasses.replace(free, spread=1.6)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    found = iter([busy, free])
    monkeypatch.setattr(timing, "_calibration", lambda _: next(found))
    assert calibrate(num_attempts=2) == free
    monkeypatch.setattr(timing, "_calibration", lambda _: busy)
    assert calibrate(num_attempts=2) == busy


def test_growth_is_measured_on_what_was_asked_for(tmp_path: Path) -> None:
    assert measure_images(1000, tmp_path)["images"] == 1000
    taxa = measure_taxa(100, tmp_path)["taxa"]
    assert 90 <= taxa <= 110
    latents, readable = SimulatedLatents(tmp_path / "latents", 100).read(np.array([3, 99]), np.array([0, 0]))
    assert latents.shape == (2, *SimulatedLatents.latent_shape)
    assert readable.all()


def test_a_budget_ends_by_itself_and_every_row_is_there_or_says_why_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert within(12.0, "cpu", path, small=True) == 0
    report = json.loads(path.read_text())
    assert report["ended_by_itself"].startswith("yes")
    assert report["rows"]["drawn"]["size_px"] == 16
    rows = [*report["rows"], *report["left_out"]]
    assert len(set(rows)) == len(rows)
    if report["ended_by_itself"] == "yes":
        assert set(rows) == {
            "drawn", "memory_vs_published", "train_stage0_vs_published", "train_last_stage_vs_published",
            "train_stage0_vs_diffusers_lora", "utilisation", "sample_vs_diffusers", "sample_vs_published",
            "latent_cache", "small_large_batch", "utilisation_compiled",
        }  # fmt: skip


def test_a_row_without_time_sides_that_differ_and_full_memory_are_said(tmp_path: Path) -> None:
    report = budget.Report(tmp_path / "rows.json", "cpu", budget_s=20.0)

    def differs() -> None:
        raise NotTheSameError("losses 1 and 2")

    def is_full() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    budget._row(report, "late", 100.0, lambda: pytest.fail("began"))
    budget._row(report, "other", 0.0, differs)
    budget._row(report, "full", 0.0, is_full)
    budget._row(report, "good", 0.0, lambda: report.add("good", {"ratio": 2.0}))
    found = json.loads((tmp_path / "rows.json").read_text())
    assert list(found["rows"]) == ["good"]
    assert "100 s or more" in found["left_out"]["late"]
    assert found["left_out"]["other"] == "not the same: losses 1 and 2"
    assert "out of memory" in found["left_out"]["full"]


def test_the_alarm_passes_through_whoever_catches_exceptions() -> None:
    def swallows() -> None:
        try:
            time.sleep(5)
        except Exception as error:
            raise RuntimeError from error

    with pytest.raises(OutOfTimeError), budget._alarm(0.05):
        swallows()


def test_a_drawn_base_is_the_same_each_time_and_has_the_full_sizes_shapes(tmp_path: Path) -> None:
    workload = drawn.tiny(tmp_path / "base", "cpu", torch.float32)
    one, other = (workload.backbone(torch.float32) for _ in range(2))
    for first, second in ((one.unet, other.unet), (one.vae, other.vae), (one.text.model, other.text.model)):
        pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    with torch.device("meta"):
        full = UNet2DConditionModel(**drawn.SD15.unet)
    assert sum(p.numel() for p in full.parameters()) == 859_520_964


def test_an_evaluation_of_drawn_features_is_measured_whole() -> None:
    found = evaluate.measure(400, width=12)
    assert found.of_species == 400
    assert found.pictures > 400
    for rank in evaluate.RANKS:
        assert any(f"measuring made at rank {rank}" in phase for phase in found.phases)


class PerfectMeter:
    """Reads the true traits off pictures that the simulator drew of an ancestor, and zeros off any other."""

    usable = MEASURANDS

    def __init__(self, clade: Clade, number: int) -> None:
        truth = ancestor_truth(clade)
        self.spread = species_spread(clade)
        self.known = {
            image.tobytes(): truth[taxon]
            for taxon, node in clade.ancestors().items()
            for image in ancestors.simulated(clade, node, number)
        }

    def read(self, images: np.ndarray) -> np.ndarray:
        return np.stack([self.known.get(image.tobytes(), np.zeros(len(MEASURANDS))) for image in images])


def knowing(clade: Clade, num_species: int, folder: Path) -> Adapter:
    """A random model of so many species of the clade."""
    base = write_tiny_base(folder / "base")
    taxonomy = taxonomy_of(clade.species[:num_species], clade.ranks)
    denoiser = make(base, ranks=clade.ranks, taxonomy=taxonomy)
    save_adapter(folder / "model", denoiser, taxonomy, recipe={}, read_me="", image_size_px=16)
    return load_adapter(folder / "model", base=str(base))


def test_drawn_ancestors_are_compared_with_true_ones(tmp_path: Path) -> None:
    clade, number = Clade.grow(1, 12), 2
    adapter, meter = knowing(clade, 12, tmp_path), cast(TraitMeter, PerfectMeter(clade, number))

    def measured() -> dict[str, Any]:
        return ancestors.measure(adapter, clade, meter, tmp_path / "out", number, Guidance(2.0), Sampling(2, 8))

    found = measured()
    table, nodes = found["table1"], clade.ancestors()
    assert table["true_ancestor"]["all"]["trait_error"]["mean"] == pytest.approx(0, abs=1e-9)
    assert table["other_true_ancestors"]["all"]["trait_error"]["low"] > 0
    assert (
        table["species_mean"]["all"]["trait_error"]["mean"]
        < table["other_true_ancestors"]["all"]["trait_error"]["mean"]
    )
    for way in ("brownian", "dated", "brownian_mean", "naive_mean", "own_name"):  # all of them read as nothing
        assert table[way]["all"]["trait_error"] == table["brownian"]["all"]["trait_error"]
        assert len(list((tmp_path / "out" / way).rglob("*.png"))) == number * len(nodes)
    assert table["naive_mean"]["all"]["above_brownian"]["mean"] == 0
    above = table["true_ancestor"]["all"]["above_brownian"]
    assert above["mean"] == pytest.approx(-table["brownian"]["all"]["trait_error"]["mean"])
    assert sum(table["brownian"][rank]["number"] for rank in clade.ranks[:-1] if rank in table["brownian"]) == len(
        nodes
    )
    assert set(found["trait_errors"]) == {str(taxon) for taxon in nodes}
    times = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png") if path.parent != tmp_path / "out"
    }
    assert measured() == found
    assert times == {path: path.stat().st_mtime_ns for path in times}, "what is there is not drawn again"


def test_species_tell_more_of_their_own_ancestor_than_other_ancestors_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ancestors, "NUM_CLADES", 4)
    meter = cast(TraitMeter, PerfectMeter(Clade.grow(0, 12), 1))
    found = ancestors.of_clades(meter, 12, ("order", "family", "genus", "species"))
    for kind in ("species_mean", "species_brownian"):
        assert found[kind]["all"]["number"] == 4
        assert found[kind]["all"]["trait_error"]["mean"] < found["other_true_ancestors"]["all"]["trait_error"]["mean"]


def test_ancestors_of_a_model_that_knows_too_few_species_are_refused(tmp_path: Path) -> None:
    clade = Clade.grow(1, 12)
    with pytest.raises(DataError, match="fewer than two ancestors"):
        ancestors.measure(
            knowing(clade, 1, tmp_path),
            clade,
            cast(TraitMeter, PerfectMeter(clade, 1)),
            tmp_path,
            1,
            Guidance(),
            Sampling(1),
        )


def test_trust_holds_among_taxa_that_set_no_threshold() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(2, 1, (80, 1)) ** np.array([0.2, 1.0])
    scores, right = (np.minimum.accumulate(rng.binomial(6, chance) / 6, axis=1) for _ in range(2))
    wrong, depths = halved(scores, right, 0.1, 300, 0)
    assert wrong.mean() <= 0.1
    assert depths.total() == 300 * 40
    assert depths[0] < depths.total(), "and not by trusting nothing"
    broken, _ = halved(scores, 1 - right[:, ::-1], 0.1, 300, 0)  # what scores says nothing of what is right
    assert broken.mean() <= 0.1, "then it trusts less, and still keeps its promise"
