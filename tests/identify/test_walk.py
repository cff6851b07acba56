"""Laws of the walk: the right taxon, no more predictions than asked for, and the same answer in any batch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from taxadiffusion.denoiser import Batch
from taxadiffusion.errors import SettingsError
from taxadiffusion.identify.known_tree import KnownTree
from taxadiffusion.identify.losses import ConditionLosses, DrawSettings
from taxadiffusion.identify.walk import WalkSettings, walk
from taxadiffusion.names import Lineage
from tests.identify.analytic import AnalyticDenoiser, World, species
from tests.taxa import taxonomy_of
from tests.tiny_adapter import RANKS as TINY_RANKS
from tests.tiny_adapter import TAXA, TAXONOMY, make

RANKS = ("order", "family", "genus", "species")


def set_up(branches: Sequence[int], **settings: object) -> tuple[KnownTree, ConditionLosses, World]:
    lineages = species(branches)
    world = World.of(lineages)
    denoiser = AnalyticDenoiser(world)
    tree = KnownTree(taxonomy_of(lineages, RANKS), RANKS)
    return tree, ConditionLosses(denoiser, 16, **settings), world  # type: ignore[arg-type]


def of_photograph(losses: ConditionLosses, latents: torch.Tensor):
    return lambda lineages, draws: losses(latents, lineages, draws)


def test_photographs_are_named_as_their_species() -> None:
    tree, losses, world = set_up((2, 2, 2, 2))
    right = 0
    for number, lineage in enumerate(tree.lineage(taxon) for taxon in tree.taxonomy.at_rank("species")):
        found = walk(tree, of_photograph(losses, world.photograph(lineage, number)))
        right += tree.lineage(found.path[-1]) == lineage
    assert right >= 14  # of 16: the species' own photographs overlap


def test_cost_grows_with_depth_times_children_and_not_with_taxa() -> None:
    settings = WalkSettings(draws=(4, 8), beam=2)
    for branches in ((2, 2, 2, 2), (3, 3, 3, 3)):
        tree, losses, world = set_up(branches)
        photograph = world.photograph(tree.lineage(tree.taxonomy.at_rank("species")[0]), 0)
        walk(tree, of_photograph(losses, photograph), settings)
        assert losses.num_predictions <= 8 * sum(settings.beam * number for number in branches)
    assert losses.num_predictions < 4 * len(tree.taxonomy.at_rank("species"))


def test_more_noises_are_added_only_while_nothing_is_separated() -> None:
    """Two taxa far apart need the fewest draws; two alike take the whole budget, and both are followed."""
    lineages = [Lineage.of({"order": "A", "family": "X"}), Lineage.of({"order": "B", "family": "Y"})]
    tree = KnownTree(taxonomy_of(lineages, ("order", "family")), ("order", "family"))
    asked: list[int] = []

    def table(far: float):
        rng = np.random.default_rng(0)

        def losses(under: Sequence[Lineage], draws: range) -> np.ndarray:
            asked.append(len(under) * len(draws))
            gap = [far if lineage.get("order") == "B" else 0.0 for lineage in under]
            return 1 + np.array(gap)[:, None] + 0.1 * rng.standard_normal((len(under), len(draws)))

        return losses

    clear = walk(tree, table(5.0), WalkSettings(draws=(4, 32)))
    assert asked == [8], "one round; what has one child asks nothing"
    assert [tree.taxonomy.name(taxon) for taxon in clear.path] == ["A", "X"]
    asked.clear()
    alike = walk(tree, table(0.0), WalkSettings(draws=(4, 32), separation=8.0))
    assert sum(asked[:8]) == 2 * 32
    assert len(alike.steps[0].kept) == 2
    assert alike.steps[0].losses.shape == (2, 32)


def test_a_label_is_never_lost_on_the_way() -> None:
    tree, losses, world = set_up((2, 2, 2, 2))
    tips = tree.taxonomy.at_rank("species")
    for shown, label in itertools.islice(itertools.permutations(tips, 2), 0, 240, 24):
        found = walk(tree, of_photograph(losses, world.photograph(tree.lineage(shown), 0)), label=label)
        assert label in found.steps[-1].candidates
        assert np.isfinite(found.steps[-1].evidence(label).standard_errors)


def test_the_walk_is_the_search_among_all_species_where_all_ways_are_followed() -> None:
    tree, losses, world = set_up((2, 2, 2, 2))
    tips = tree.taxonomy.at_rank("species")
    settings = WalkSettings(draws=(8, 8), beam=100, separation=1e6)
    for number, tip in enumerate(tips[::3]):
        of_it = of_photograph(losses, world.photograph(tree.lineage(tip), number))
        flat = of_it([tree.lineage(one) for one in tips], range(8)).mean(1)
        assert walk(tree, of_it, settings).path[-1] == tips[int(flat.argmin())]


def test_ranks_that_the_model_lacks_are_passed_through() -> None:
    lineages = [Lineage.of({"order": "A", "family": name, "genus": name + "us"}) for name in ("X", "Y")]
    tree = KnownTree(taxonomy_of(lineages, ("order", "family", "genus")), ("order", "genus"))
    order = tree.children(None)
    assert [tree.taxonomy.name(taxon) for taxon in tree.children(order[0])] == ["Xus", "Yus"]
    taxon = tree.deepest(lineages[1])
    assert taxon is not None
    assert tree.lineage(taxon) == Lineage.of({"order": "A", "genus": "Yus"})
    assert [tree.rank(one) for one in tree.path(taxon)] == ["order", "genus"]
    assert tree.deepest(Lineage.of({"order": "A", "family": "Z"})) == order[0]
    assert tree.deepest(Lineage.of({"order": "B"})) is None


@pytest.mark.parametrize("wrong", [{"draws": (1, 8)}, {"draws": (9, 8)}, {"separation": 0.0}, {"beam": 0}])
def test_impossible_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsError):
        WalkSettings(**wrong)  # type: ignore[arg-type]


def test_losses_are_those_of_training_kept_by_name_and_the_same_in_any_batch(base: Path) -> None:
    """Of a real U-Net: keys and values that are kept between calls change nothing."""
    denoiser = make(base)
    latents = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(3))
    lineages = [*TAXA, TAXA[0].truncated("order"), TAXA[0].truncated("family")]
    losses = ConditionLosses(denoiser, 16, DrawSettings(seed=5))
    first = losses(latents, lineages, range(3))
    noises, timesteps = losses._drawn(range(3))
    for row, lineage in enumerate(lineages):
        batch = Batch(latents.expand(3, -1, -1, -1), [lineage] * 3, noises, timesteps)
        with torch.no_grad():
            assert np.allclose(first[row], denoiser.losses(batch).plain.numpy(), rtol=1e-4)
    texts = denoiser.conditioner.states
    denoiser.conditioner.__dict__["states"] = None  # all names are known by now
    assert np.allclose(losses(latents, lineages[::-1], range(3)), first[::-1], rtol=1e-5)
    one_by_one = ConditionLosses(denoiser, 16, DrawSettings(seed=5), batch_size=1)
    denoiser.conditioner.__dict__["states"] = texts
    assert np.allclose(one_by_one(latents, lineages, range(3)), first, rtol=1e-4)
    assert losses.num_predictions == 2 * 12
    tree = KnownTree(TAXONOMY, TINY_RANKS)
    assert len(walk(tree, of_photograph(losses, latents)).path) == 3
