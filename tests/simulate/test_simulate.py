"""Laws of the simulated clade: its tree, ranks, traits, pictures, words and tables, and the meter that reads them."""

from __future__ import annotations

import csv
import json
import re
from itertools import combinations, pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.simulate import (
    TRAITS,
    VOCABULARY,
    Clade,
    Pose,
    TraitMeter,
    Traits,
    ancestor_truth,
    caption,
    colour_word,
    draw,
    photograph,
    simulate,
    species_spread,
    taxon_truth,
    trait_error,
)
from taxadiffusion.simulate.captions import COLOURS
from taxadiffusion.simulate.draw import dive_of
from taxadiffusion.simulate.measurands import MEASURANDS, measurands
from taxadiffusion.simulate.pose import BACKGROUNDS
from taxadiffusion.simulate.scene import _tiles, background
from taxadiffusion.simulate.write import MIN_IMAGES, image_counts, split_of


@pytest.fixture(scope="module")
def clade() -> Clade:
    return Clade.grow(1, 40)


@pytest.fixture(scope="module")
def strangers() -> tuple[np.ndarray, list[Traits], list[Pose]]:
    """Pictures of 300 fish of no clade."""
    rng = np.random.default_rng(11)
    traits = [Traits.sample(rng) for _ in range(300)]
    poses = [Pose.sample(rng) for _ in traits]
    return np.stack([draw(one, pose, rng) for one, pose in zip(traits, poses, strict=True)]), traits, poses


@pytest.fixture(scope="module")
def meter(strangers: tuple[np.ndarray, list[Traits], list[Pose]]) -> TraitMeter:
    return TraitMeter.fit(*strangers)


# the tree and its ranks


def test_equal_seeds_grow_equal_clades_and_other_seeds_other_ones() -> None:
    one, same, other = Clade.grow(5, 12), Clade.grow(5, 12), Clade.grow(6, 12)
    assert one.species == same.species
    assert one.traits == same.traits
    assert one.newick() == same.newick()
    assert one.newick() != other.newick()
    assert one.traits != other.traits


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("num_species", [2, 3, 17])
def test_every_node_splits_in_two_later_than_its_parent_and_every_species_lives_today(
    seed: int, num_species: int
) -> None:
    clade = Clade.grow(seed, num_species)
    assert len(clade) == num_species == len(set(clade.species))
    assert len(clade.parents) == 2 * num_species - 1
    inner, counts = np.unique(clade.parents[1:], return_counts=True)
    assert (counts == 2).all()
    assert set(inner) == set(range(len(clade.parents))) - set(clade.tips.tolist())
    assert (clade.times[1:] > clade.times[clade.parents[1:]]).all()
    assert (clade.times[clade.tips] == 1.0).all()


def _tip_ages(newick: str) -> dict[str, float]:
    """Distance of every tip from the root of a tree in Newick format."""
    ages: dict[str, float] = {}
    clades: list[set[str]] = [set()]  # tips below each open bracket
    closed: set[str] = set()  # and below the last one closed
    for opening, name, length in re.findall(r"(\()|([^(),;:]*):([0-9.]+)|\)", newick.rstrip(";")):
        if opening:
            clades.append(set())
        elif name:
            ages[name] = float(length)
            clades[-1].add(name)
        elif length:  # the branch above the bracket just closed
            for tip in closed:
                ages[tip] += float(length)
        else:
            closed = clades.pop()
            clades[-1] |= closed
    return ages


def test_newick_branch_lengths_add_up_to_the_same_age_at_every_tip(clade: Clade) -> None:
    ages = _tip_ages(clade.newick())
    assert set(ages) == {lineage.label.replace(" ", "_") for lineage in clade.species}
    root = float(clade.times[0])
    np.testing.assert_allclose(list(ages.values()), 1.0 - root, atol=1e-4)


@pytest.mark.parametrize("ranks", [("order", "family", "genus", "species"), ("class", "order", "genus", "species")])
def test_every_taxon_is_all_that_descends_from_one_node(ranks: tuple[str, ...]) -> None:
    clade = Clade.grow(3, 30, ranks)
    ancestors = []
    for tip in clade.tips.tolist():
        path = [tip]
        while clade.parents[path[-1]] >= 0:
            path.append(int(clade.parents[path[-1]]))
        ancestors.append(set(path))
    for rank in ranks:
        for species in clade.taxa(rank).values():
            common = max(set.intersection(*(ancestors[index] for index in species)))
            assert clade.species_below(common) == species


def test_an_ancestor_is_where_a_taxons_species_part_and_none_is_there_twice(clade: Clade) -> None:
    nodes = clade.ancestors()
    assert len(set(nodes.values())) == len(nodes)
    for taxon, node in nodes.items():
        assert clade.species_below(node) == clade.taxa(taxon.rank or "")[taxon]
    ranks = list(clade.ranks)
    below = {(one.truncated(rank), one.truncated(finer)) for one in clade.species for rank, finer in pairwise(ranks)}
    parents = [taxon for taxon, _ in below]
    assert set(nodes) == {taxon for taxon in parents if parents.count(taxon) > 1}


def test_the_ancestor_of_the_species_that_are_known_is_no_older_than_that_of_all(clade: Clade) -> None:
    known = set(clade.species[::2])
    of_known, of_all = clade.ancestors(known), clade.ancestors()
    assert set(of_known) <= set(of_all)
    for taxon, node in of_known.items():
        assert clade.times[node] >= clade.times[of_all[taxon]]
        children = np.flatnonzero(clade.parents == node)
        assert all(any(clade.species[i] in known for i in clade.species_below(int(child))) for child in children)


def test_an_ancestor_is_more_like_its_own_descendants_than_other_taxa(clade: Clade) -> None:
    truth, spread = ancestor_truth(clade), species_spread(clade) + 1e-9
    of_taxa = {rank: taxon_truth(clade, rank) for rank in clade.ranks}
    own, other = [], []
    for taxon, values in truth.items():
        for relative, mean in of_taxa[taxon.rank or ""].items():
            (own if relative == taxon else other).append(float((((values - mean) / spread) ** 2).mean()))
    assert np.mean(own) < 0.5 * np.mean(other)


def test_taxa_multiply_from_rank_to_rank_and_no_name_is_given_twice(clade: Clade) -> None:
    numbers = [len(clade.taxa(rank)) for rank in clade.ranks]
    assert numbers == sorted(numbers)
    assert numbers[0] >= 2
    assert numbers[-1] == 40
    names = [taxon.names[-1][1] for rank in clade.ranks for taxon in clade.taxa(rank)]
    assert len(names) == len(set(names))


def test_species_of_a_genus_are_alike_and_species_of_two_families_are_not() -> None:
    within, between = [], []
    for seed in range(5):
        clade = Clade.grow(seed, 24)
        values = np.stack([measurands(one) for one in clade.traits]) / (species_spread(clade) + 1e-9)
        for a, b in combinations(range(24), 2):
            distance = float(((values[a] - values[b]) ** 2).mean())
            if clade.species[a].get("genus") == clade.species[b].get("genus"):
                within.append(distance)
            elif clade.species[a].get("family") != clade.species[b].get("family"):
                between.append(distance)
    assert min(within) > 0.0
    assert np.mean(within) < 0.5 * np.mean(between)


def test_traits_stay_in_their_ranges(clade: Clade) -> None:
    for one in clade.traits:
        for spec in TRAITS:
            assert spec.low <= one.values()[spec.name] <= spec.high


@pytest.mark.parametrize(
    ("num_species", "ranks"), [(1, ("genus", "species")), (5, ("genus",)), (5, ("species",)), (5, ("order", "species"))]
)
def test_a_clade_without_two_species_or_without_genus_and_species_is_refused(
    num_species: int, ranks: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError):
        Clade.grow(0, num_species, ranks)


# pictures


def test_a_picture_depends_on_seed_species_and_index_alone(clade: Clade) -> None:
    _, first = photograph(clade.traits[3], 1, 3, 7)
    photograph(clade.traits[0], 1, 0, 0)
    _, again = photograph(clade.traits[3], 1, 3, 7)
    assert first.shape == (3, 64, 64)
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    for other in ((2, 3, 7), (1, 4, 7), (1, 3, 8)):
        assert (photograph(clade.traits[3], *other)[1] != first).mean() > 0.5


def test_two_pictures_of_a_dive_share_place_and_light_and_not_the_pose(clade: Clade) -> None:
    one, two = (photograph(clade.traits[0], 1, 0, index)[0] for index in (4, 5))
    assert (one.background, one.depth, one.exposure, one.warmth) == (
        two.background,
        two.depth,
        two.exposure,
        two.warmth,
    )
    assert one.rotation != two.rotation


def test_a_picture_at_twice_the_size_shows_the_same_fish() -> None:
    rng = np.random.default_rng(2)
    traits, pose = Traits.sample(rng), Pose.sample(rng)
    small = draw(traits, pose, np.random.default_rng(0), 64).astype(float)
    large = draw(traits, pose, np.random.default_rng(0), 128).astype(float)
    halved = large.reshape(3, 64, 2, 64, 2).mean(axis=(2, 4))
    middle = np.s_[:, 24:40, 20:44]
    assert np.abs(small - halved)[middle].mean() < 12.0


# words


def test_captions_use_the_vocabulary_and_no_name_of_a_taxon(clade: Clade) -> None:
    rng = np.random.default_rng(0)
    names = {part.lower() for lineage in clade.species for _, name in lineage.names for part in name.split()}
    used = set()
    for traits in [*clade.traits, *(Traits.sample(rng) for _ in range(1500))]:
        pose = Pose.sample(rng)
        words = caption(traits, pose).replace(",", "").split()
        assert f"facing {pose.facing}" in " ".join(words)
        used.update(words)
    assert used == set(VOCABULARY)
    assert not used & names


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((0, 0, 0), "black"), ((1, 1, 1), "white"), ((0.5, 0.5, 0.5), "grey"), ((0.75, 0.75, 0.75), "silver"),
        ((0.9, 0.1, 0.1), "red"), ((1, 0.5, 0.05), "orange"), ((0.45, 0.25, 0.12), "brown"), ((1, 0.9, 0.1), "yellow"),
        ((0.4, 0.4, 0.1), "olive"), ((0.1, 0.7, 0.2), "green"), ((0.1, 0.6, 0.6), "teal"), ((0.1, 0.2, 0.9), "blue"),
        ((0.5, 0.1, 0.8), "violet"), ((1, 0.6, 0.75), "pink"), ((0, 0, 0.35), "dark blue"),
        ((0.6, 0.9, 0.6), "pale green"),
    ],
)  # fmt: skip
def test_colours_are_named_as_people_name_them(rgb: tuple[float, float, float], word: str) -> None:
    assert colour_word(rgb) == word


def test_every_colour_has_a_name_and_what_is_no_colour_is_refused() -> None:
    for rgb in np.random.default_rng(0).random((2000, 3)):
        prefix, _, name = colour_word(rgb).rpartition(" ")
        assert name in COLOURS
        assert prefix in ("", "dark", "pale")
    with pytest.raises(ValueError, match="0 … 1"):
        colour_word((255, 0, 0))


# the folder


def test_image_counts_add_up_and_are_long_tailed() -> None:
    counts = image_counts(24, 2400, 0)
    assert sum(counts) == 2400
    assert min(counts) >= MIN_IMAGES
    assert max(counts) > 8 * float(np.median(counts)) / 2
    assert counts == image_counts(24, 2400, 0)
    with pytest.raises(SettingsError, match="192 or more"):
        image_counts(24, 100, 0)


@pytest.mark.parametrize("num_images", [8, 9, 40, 101])
def test_a_dive_is_in_one_split_and_every_species_in_all_three(num_images: int) -> None:
    splits = [split_of(index, num_images) for index in range(num_images)]
    assert set(splits) == {"train", "val", "test"}
    for index in range(1, num_images):
        assert dive_of(index) != dive_of(index - 1) or splits[index] == splits[index - 1]
    assert splits.count("train") >= num_images / 2


def test_the_folder_holds_every_picture_with_its_true_traits(tmp_path: Path) -> None:
    result = simulate(tmp_path / "clade", seed=4, num_species=5, num_images=60)
    with (result.path / "metadata.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = pq.read_table(result.path / "traits.parquet").to_pylist()
    assert len(rows) == len(table) == 60
    clade = Clade.grow(4, 5)
    for row, truth in zip(rows, table, strict=True):
        species = truth["species_index"]
        lineage = clade.species[species]
        assert row["file_name"] == truth["file_name"]
        assert row["scientific_name"] == f"{row['genus']} {row['species']}" == lineage.label
        assert {spec.name: truth[spec.name] for spec in TRAITS} == clade.traits[species].values()
        pose, expected = photograph(clade.traits[species], 4, species, truth["image_index"])
        assert truth["caption"] == caption(clade.traits[species], pose)
        with Image.open(result.path / row["file_name"]) as image:
            np.testing.assert_array_equal(np.asarray(image).transpose(2, 0, 1), expected)
    ancestors = {row["scientific_name"]: row for row in pq.read_table(result.path / "ancestors.parquet").to_pylist()}
    assert set(ancestors) == {taxon.label for taxon in clade.ancestors()}
    for taxon, node in clade.ancestors().items():
        row = ancestors[taxon.label]
        assert {spec.name: row[spec.name] for spec in TRAITS} == clade.node_traits[node].values()
        assert (row["taxon_rank"], row["time"]) == (taxon.rank, clade.times[node])
    assert json.loads((result.path / "clade.json").read_text(encoding="utf-8"))["num_taxa"]["species"] == 5
    assert (result.path / "tree.nwk").read_text(encoding="utf-8").strip() == clade.newick()
    assert "None of these animals exists" in (result.path / "README.md").read_text(encoding="utf-8")


def test_a_folder_in_use_is_refused_and_a_broken_run_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(SettingsError, match="not an empty folder"):
        simulate(tmp_path / "used", num_species=2, num_images=16)

    def stop(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(tmp_path / "new", num_species=2, num_images=16, on_image=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_the_command_writes_the_folder(tmp_path: Path) -> None:
    out = tmp_path / "clade"
    result = CliRunner().invoke(
        app, ["simulate", str(out), "--num-species", "3", "--num-images", "24", "--size-px", "32"]
    )
    assert result.exit_code == 0, result.output
    assert "24 pictures" in result.output
    assert len(list(out.glob("images/*/*.png"))) == 24


# the instrument


def test_the_instrument_reads_colours_and_depth_and_not_what_was_shuffled(
    meter: TraitMeter, strangers: tuple[np.ndarray, list[Traits], list[Pose]]
) -> None:
    images, traits, poses = strangers
    r2 = dict(zip(MEASURANDS, meter.r2, strict=True))
    for name in ("body_depth", "fin_green_blue", "body_green_blue"):
        assert r2[name] > 0.4
    shuffled = [traits[index] for index in np.random.default_rng(0).permutation(len(traits))]
    assert max(TraitMeter.fit(images, shuffled, poses).r2) < 0.2


def test_a_mirror_image_reads_the_same(
    meter: TraitMeter, strangers: tuple[np.ndarray, list[Traits], list[Pose]]
) -> None:
    images = strangers[0][:24]
    np.testing.assert_allclose(meter.read(images), meter.read(images[..., ::-1]), atol=1e-3)


def test_the_truth_of_a_taxon_is_the_mean_of_its_species(clade: Clade) -> None:
    of_species = taxon_truth(clade, "species")
    for rank in clade.ranks:
        for taxon, value in taxon_truth(clade, rank).items():
            below = [truth for species, truth in of_species.items() if species.truncated(rank) == taxon]
            np.testing.assert_allclose(value, np.mean(below, axis=0))


def _members_in_turn(clade: Clade, rank: str, num: int) -> list[tuple[int, int]]:
    """(species told, species shown) of `num` pictures per species, shown in turn by all species of its taxon."""
    pairs = []
    for told, species in enumerate(clade.species):
        members = clade.taxa(rank)[species.truncated(rank)]
        pairs += [(told, members[turn % len(members)]) for turn in range(num)]
    return pairs


class _PerfectMeter:
    """Reads the true traits of the species whose number is written in a picture's first pixel."""

    usable = MEASURANDS

    def __init__(self, clade: Clade) -> None:
        self.truth = np.stack([measurands(one) for one in clade.traits])
        self.spread = self.truth.std(axis=0)

    def read(self, images: np.ndarray) -> np.ndarray:
        return self.truth[images[:, 0, 0, 0]]


def test_with_perfect_readings_the_error_falls_from_rank_to_rank_to_nothing() -> None:
    clade = Clade.grow(1, 24)
    errors = []
    for rank in clade.ranks:
        pairs = _members_in_turn(clade, rank, 60)
        images = np.zeros((len(pairs), 3, 64, 64), dtype=np.uint8)
        images[:, 0, 0, 0] = [shown for _, shown in pairs]
        told = [clade.species[index] for index, _ in pairs]
        meter = cast(TraitMeter, _PerfectMeter(clade))
        errors.append(trait_error(meter, images, told, taxon_truth(clade, "species"), species_spread(clade)).mean)
    order, family, genus, species = errors
    assert species == pytest.approx(0.0, abs=1e-12)
    assert 0.01 < genus < family < order


def test_the_instrument_tells_pictures_of_a_species_from_pictures_of_its_order(meter: TraitMeter) -> None:
    clade = Clade.grow(1, 24)
    pictures = [[photograph(one, 1, number, index)[1] for index in range(4)] for number, one in enumerate(clade.traits)]
    errors = {}
    for rank in ("order", "species"):
        pairs = _members_in_turn(clade, rank, 4)
        images = np.stack([pictures[shown][turn % 4] for turn, (_, shown) in enumerate(pairs)])
        told = [clade.species[index] for index, _ in pairs]
        errors[rank] = trait_error(meter, images, told, taxon_truth(clade, "species"), species_spread(clade)).mean
    assert errors["species"] < errors["order"]


def test_pictures_of_a_taxon_without_truth_or_of_an_odd_size_are_refused(meter: TraitMeter, clade: Clade) -> None:
    truth, spread = taxon_truth(clade, "order"), species_spread(clade)
    images = np.zeros((1, 3, 64, 64), dtype=np.uint8)
    with pytest.raises(DataError, match="no true traits"):
        trait_error(meter, images, [clade.species[0]], truth, spread)
    with pytest.raises(DataError, match="one taxon per picture"):
        trait_error(meter, images, [], truth, spread)
    with pytest.raises(DataError, match="multiple of 64"):
        meter.read(np.zeros((1, 3, 65, 65), dtype=np.uint8))


def test_noise_is_made_once_however_many_pictures_are_drawn() -> None:
    rng = np.random.default_rng(0)
    poses = [Pose.sample(rng) for _ in range(60)]
    assert {pose.background for pose in poses} == set(BACKGROUNDS)
    for pose in poses:
        background(pose, rng, 16)
    made = _tiles.cache_info()
    assert made.misses == made.currsize
