"""Laws of the walk: the right taxon, no more predictions than asked for, and the same answer in any batch."""

from __future__ import annotations

import itertools
from collections import Counter
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


def test_a_node_costs_no_more_taxa_than_are_asked_however_many_there_are() -> None:
    settings = WalkSettings(draws=(4, 8), beam=2, most_asked=8)
    for branches in ((2, 2, 2, 2), (3, 3, 3, 3)):
        tree, losses, world = set_up(branches)
        photograph = world.photograph(tree.lineage(tree.taxonomy.at_rank("species")[0]), 0)
        found = walk(tree, of_photograph(losses, photograph), settings)
        assert all(len(step.asked) <= settings.most_asked for step in found.steps)
        assert losses.num_predictions <= 8 * settings.most_asked * len(found.steps)
        assert len(found.path) == 4
    assert losses.num_predictions < 4 * len(tree.taxonomy.at_rank("species"))


def test_few_taxa_that_stand_for_a_branch_are_of_all_of_its_parts() -> None:
    tree, _, _ = set_up((2, 2, 2, 2))
    order = tree.children(None)[0]
    assert len(tree.tips(order)) == 8
    assert {tree.path(tip)[1] for tip in tree.tips(order, 2)} == set(tree.children(order))
    assert len({tree.path(tip)[2] for tip in tree.tips(order, 4)}) == 4
    tip = tree.tips(order)[0]
    assert tree.tips(tip) == (tip,)


def test_a_branch_is_found_by_its_species_whatever_the_names_above_say() -> None:
    """A name above the species looks like any of them, so it describes none well."""
    tree, _, _ = set_up((2, 2, 2, 2))
    shown = tree.taxonomy.at_rank("species")[-1]
    asked: set[str] = set()

    def losses(under: Sequence[Lineage], draws: range) -> np.ndarray:
        asked.update(str(lineage.rank) for lineage in under)
        levels = 10.0 ** np.arange(draws.start, draws.stop)  # of which one would outweigh all others
        far = np.array([0.0 if lineage == tree.lineage(shown) else 0.01 for lineage in under])
        return levels * (1 + far[:, None] + 1e-4 * np.random.default_rng(0).random((len(under), len(draws))))

    found = walk(tree, losses)
    assert found.path == tree.path(shown)
    assert asked == {"species"}
    for taxon in found.path:
        evidence = found.evidence(taxon)
        assert evidence.standard_errors > 3
        assert evidence.rival in set(tree.children(None)) | {
            sister for above in found.path for sister in tree.children(above)
        } - {taxon}
        assert evidence.num_candidates == 2


def test_more_noises_are_added_only_while_nothing_is_separated() -> None:
    """Two taxa far apart need the fewest draws; two alike take the whole budget, and both are kept."""
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
    assert asked == [8], "one round"
    assert [tree.taxonomy.name(taxon) for taxon in clear.path] == ["A", "X"]
    asked.clear()
    alike = walk(tree, table(0.0), WalkSettings(draws=(4, 32), separation=8.0))
    assert sum(asked) == 2 * 32
    assert len(alike.steps[0].kept) == 2
    assert alike.steps[0].losses.shape == (2, 32)


def test_what_one_node_has_computed_is_not_computed_again_at_the_next() -> None:
    tree, losses, world = set_up((2, 2, 2, 2))
    asked: Counter[tuple[Lineage, int]] = Counter()
    photograph = world.photograph(tree.lineage(tree.taxonomy.at_rank("species")[0]), 0)

    def counted(under: Sequence[Lineage], draws: range) -> np.ndarray:
        asked.update(itertools.product(under, draws))
        return losses(photograph, under, draws)

    assert len(walk(tree, counted, WalkSettings(draws=(4, 16), most_asked=4)).steps) > 1
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("most_asked", [4, 128])
def test_a_label_is_never_lost_on_the_way(most_asked: int) -> None:
    tree, losses, world = set_up((2, 2, 2, 2))
    tips = tree.taxonomy.at_rank("species")
    labels = [*tips, *tree.taxonomy.at_rank("genus")]
    for shown, label in itertools.islice(itertools.product(tips, labels), 0, 384, 24):
        found = walk(
            tree, of_photograph(losses, world.photograph(tree.lineage(shown), 0)), WalkSettings(most_asked=most_asked),
            label=label,
        )  # fmt: skip
        assert any(label in tree.path(one) for one in found.steps[-1].asked)
        against = found.against_all(label)
        assert against is not None
        assert np.isfinite(against.standard_errors)


def test_the_walk_is_the_search_among_all_species_where_all_are_asked() -> None:
    tree, losses, world = set_up((2, 2, 2, 2))
    tips = tree.taxonomy.at_rank("species")
    settings = WalkSettings(draws=(8, 8), separation=1e6)
    for number, tip in enumerate(tips[::3]):
        of_it = of_photograph(losses, world.photograph(tree.lineage(tip), number))
        flat = np.log(of_it([tree.lineage(one) for one in tips], range(8))).mean(1)
        found = walk(tree, of_it, settings)
        assert len(found.steps) == 1
        assert found.path[-1] == tips[int(flat.argmin())]


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


@pytest.mark.parametrize(
    "wrong", [{"draws": (1, 8)}, {"draws": (9, 8)}, {"separation": 0.0}, {"beam": 0}, {"most_asked": 0}]
)
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
