"""Laws of pictures on disk: recipes, resumption, and a folder that is itself a source."""

from __future__ import annotations

import ast
import csv
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.adapter import Adapter, CardNotes, load_adapter, save_adapter
from taxadiffusion.base.noise import SamplerName
from taxadiffusion.cli import app
from taxadiffusion.cli.options import MAX_SEED
from taxadiffusion.cli.options import SamplerName as CommandSamplerName
from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import CheckpointError, DataError, SettingsError, TaxaDiffusionError
from taxadiffusion.evaluate import image_plan as evaluate_generation
from taxadiffusion.evaluate.image_plan import ImagePlan, generated_pictures, picture_seed
from taxadiffusion.evaluate.pictures import generated_folder
from taxadiffusion.guidance import Context, Guidance
from taxadiffusion.images import shelves
from taxadiffusion.names import Lineage
from taxadiffusion.pictures import generate as generation
from taxadiffusion.pictures.asked import requested_lineage, species_of
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.pictures.png import DIGITAL_SOURCE_TYPE, read_picture
from taxadiffusion.sampler import Request
from tests.faults.harness import fork
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make
from tests.tiny_base import write_tiny_base

RANKS = ("family", "genus", "species")
TAXA = [
    Lineage.of({"family": family, "genus": genus, "species": epithet})
    for family, genus, epithet in (
        ("Zanclidae", "Zanclus", "cornutus"),
        ("Labridae", "Hemigymnus", "fasciatus"),
        ("Labridae/misc", "Cheilinus", "undulatus"),
    )
]
FEW = Sampling(num_steps=2, batch_size=4)
NEWER = ("note", "source_taxon_id", "sister", "blend", "weaker_sha256", "context", "context_scale")
"""Columns that the table of an earlier version lacks."""


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Adapter:
    base = write_tiny_base(tmp_path_factory.mktemp("base"))
    path = tmp_path_factory.mktemp("adapters") / "fish"
    taxonomy = taxonomy_of(TAXA, RANKS)
    save_adapter(path, make(base, ranks=RANKS, taxonomy=taxonomy), taxonomy, recipe={}, read_me="# Fish\n")
    return load_adapter(path, base=str(base))


def requests(*seeds: int) -> list[Request]:
    return [Request(lineage, seed, Guidance(2.0)) for lineage in TAXA for seed in seeds]


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "metadata.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_file_says_how_it_was_made_and_that_it_is_synthetic(adapter: Adapter, tmp_path: Path) -> None:
    made = list(generate(adapter, requests(3), tmp_path, FEW))
    assert [picture.request.lineage for picture in made] == TAXA
    with Image.open(made[0].path) as image:
        recipe = json.loads(image.text["taxadiffusion"])
        assert DIGITAL_SOURCE_TYPE in image.text["XML:com.adobe.xmp"]
    assert recipe["scientific_name"] == "Zanclus cornutus"
    assert recipe["seed"] == "3"
    assert recipe["guidance_scale"] == "2"
    assert recipe["source"] == "synthetic image"
    assert recipe["base_sha256"] == adapter.card.base_hash
    assert {row["file_name"]: row["seed"] for row in rows_of(tmp_path)} == {
        picture.path.relative_to(tmp_path).as_posix(): "3" for picture in made
    }


def test_a_second_call_makes_only_what_is_missing_and_the_same_pixels(adapter: Adapter, tmp_path: Path) -> None:
    first = {p.path: read_picture(p.path).tobytes() for p in generate(adapter, requests(0), tmp_path, FEW)}
    lost, damaged, kept = first
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-200])
    second = list(generate(adapter, requests(0, 1), tmp_path, FEW))
    assert {p.path for p in second if not p.made} == {kept}
    assert {path: read_picture(path).tobytes() for path in first} == first
    assert len(rows_of(tmp_path)) == len(second) == 6


def test_a_folder_holds_one_recipe(adapter: Adapter, tmp_path: Path) -> None:
    made = list(generate(adapter, requests(0)[:1], tmp_path / "a", FEW))
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    stronger = [Request(lineage, 5, Guidance(9.0, "genus")) for lineage in TAXA]
    with pytest.raises(SettingsError, match=r"(?s)guidance_scale: 2 there, 9 now.*guidance_rank: uncond.*\(--out\)"):
        next(generate(adapter, stronger, tmp_path / "a", FEW))
    with pytest.raises(SettingsError, match="num_steps: 2 there, 3 now"):
        next(generate(adapter, requests(1), tmp_path / "a", Sampling(num_steps=3)))
    other = replace(adapter, card=adapter.card.model_copy(update={"recipe": {"seed": 1}}))
    with pytest.raises(SettingsError, match=r"model_sha256: .*… there, .*… now"):
        next(generate(other, requests(1), tmp_path / "a", FEW))
    with pytest.raises(SettingsError, match=r"several recipes are asked for \(guidance_scale: 2, 9; guidance_rank"):
        next(generate(adapter, [*requests(0), *stronger], tmp_path / "b", FEW))
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before
    assert not (tmp_path / "b").exists()
    more = list(generate(adapter, requests(0, 1), tmp_path / "a", Sampling(num_steps=2, batch_size=3)))
    assert sum(picture.made for picture in more) == 5  # other taxa and seeds, and batches of another size, may join
    for picture in (*made, *more):
        picture.path.unlink(missing_ok=True)
    assert all(picture.made for picture in generate(adapter, stronger[:1], tmp_path / "a", FEW))


def test_pictures_of_an_older_table_with_two_recipes_are_not_scored_as_one(adapter: Adapter, tmp_path: Path) -> None:
    list(generate(adapter, requests(0), tmp_path, FEW))
    assert len(generated_folder(tmp_path, RANKS)) == 3
    rows = rows_of(tmp_path)
    rows[1]["guidance_scale"] = "6"
    with (tmp_path / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    with pytest.raises(DataError, match=r"guidance_scale: 2 \(2 pictures\), 6 \(1 pictures\)"):
        generated_folder(tmp_path, RANKS)


def test_stopping_midway_loses_nothing_that_was_made(adapter: Adapter, tmp_path: Path) -> None:
    pictures = generate(adapter, requests(0, 1), tmp_path, Sampling(num_steps=2, batch_size=2))
    done = [next(pictures), next(pictures)]
    pictures.close()
    assert {row["file_name"] for row in rows_of(tmp_path)} == {p.path.relative_to(tmp_path).as_posix() for p in done}
    again = list(generate(adapter, requests(0, 1), tmp_path, FEW))
    assert sum(p.made for p in again) == 4


def test_processes_share_the_pictures_and_the_first_lists_them_all(adapter: Adapter, tmp_path: Path) -> None:
    alone = list(generate(adapter, requests(1, 2, 3), tmp_path / "alone", FEW))
    second = list(generate(adapter, requests(1, 2, 3), tmp_path / "shared", FEW, Shard(1, 2)))
    assert [picture.request for picture in second] == requests(1, 2, 3)[4:8]  # the second batch of three
    assert not (tmp_path / "shared" / "metadata.csv").exists()
    first = list(generate(adapter, requests(1, 2, 3), tmp_path / "shared", FEW, Shard(0, 2)))
    assert {picture.request for picture in first} == set(requests(1, 2, 3))
    assert sorted(row["file_name"] for row in rows_of(tmp_path / "shared")) == sorted(
        picture.path.relative_to(tmp_path / "alone").as_posix() for picture in alone
    )
    assert files_of(tmp_path / "shared") == files_of(tmp_path / "alone")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")}


def test_a_large_job_lies_in_shards_and_is_the_same_bytes_by_two_processes_and_after_interruptions(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = list(generate(adapter, requests(1), tmp_path / "shared", FEW))  # as people look at them: a folder a taxon
    monkeypatch.setattr(shelves, "MOST_IN_TAXON_FOLDERS", 8)
    list(generate(adapter, requests(1, 2, 3), tmp_path / "alone", FEW))
    for number in (1, 0, 1, 0):  # each stopped after its first new picture, twice
        pictures = generate(adapter, requests(1, 2, 3), tmp_path / "shared", FEW, Shard(number, 2))
        next((picture for picture in pictures if picture.made), None)
        pictures.close()
    monkeypatch.setattr(generation, "PATIENCE_S", 0.0)
    made = list(generate(adapter, requests(1, 2, 3), tmp_path / "shared", FEW, Shard(0, 2)))
    assert len(made) == len(rows_of(tmp_path / "shared")) == len(rows_of(tmp_path / "alone")) == 9
    stayed = {picture.path for picture in few}
    assert stayed < {picture.path for picture in made}  # what lay there is not moved, nor made twice
    fresh = {picture.path for picture in made} - stayed
    assert all(re.fullmatch(r"shard-[0-9a-f]{2}", path.parent.name) for path in fresh)
    ours, theirs = (
        {name.rpartition("/")[2]: content for name, content in files_of(tmp_path / name).items()}
        for name in ("shared", "alone")
    )
    assert ours.keys() == theirs.keys()
    assert [ours[path.name] for path in fresh] == [theirs[path.name] for path in fresh]
    pictures = generated_folder(tmp_path / "shared", RANKS)
    assert sorted(pictures.lineages, key=str) == sorted(TAXA * 3, key=str)


def test_processes_that_evaluate_a_model_all_return_with_all_pictures(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_generation, "_POLL_S", 0.05)
    plan = ImagePlan(per_taxon=3, sampling=FEW)
    alone = generated_pictures(adapter, TAXA, plan, tmp_path / "alone")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a forked child must not ask its parent's threads

    def second() -> None:
        found = generated_pictures(adapter, TAXA, plan, tmp_path / "shared", shard=Shard(1, 2))
        (tmp_path / "second.json").write_text(json.dumps([found.files, [str(one) for one in found.lineages]]))

    child = fork(second, tmp_path)
    first = generated_pictures(adapter, TAXA, plan, tmp_path / "shared", shard=Shard(0, 2))
    torch.set_num_threads(threads)
    assert child.wait(60) == 0, child.output()
    assert json.loads((tmp_path / "second.json").read_text()) == [list(first.files), [str(o) for o in first.lineages]]
    assert first.lineages == alone.lineages
    assert [Path(file).name for file in first.files] == [Path(file).name for file in alone.files]
    monkeypatch.setattr(evaluate_generation, "_PATIENCE_S", 0.1)
    with pytest.raises(DataError, match="process 0 of this run is not at work"):
        generated_pictures(adapter, TAXA, plan, tmp_path / "without the first", shard=Shard(1, 2))


def seeds_of(files: Sequence[str]) -> list[int]:
    recipes = []
    for file in files:
        with Image.open(file) as image:
            recipes.append(json.loads(image.text["taxadiffusion"]))
    return [int(recipe["seed"]) for recipe in recipes]


def test_two_taxa_never_share_noise() -> None:
    taxa = [lineage.truncated(rank) for lineage in TAXA for rank in RANKS] + [
        Lineage.of({"family": "Zanclidae", "genus": "Cornutus", "species": "zanclus"})
    ]
    seeds = [picture_seed(set_, taxon, i) for set_ in (0, 1) for taxon in taxa for i in range(1000)]
    assert len(set(seeds)) == len(seeds)
    assert 0 <= min(seeds) <= max(seeds) <= MAX_SEED
    assert max(seeds) > MAX_SEED // 2  # all bits are used


def test_a_taxon_has_the_same_seeds_for_every_method_and_order(adapter: Adapter, tmp_path: Path) -> None:
    plan = ImagePlan(per_taxon=2, seed=7, sampling=FEW)
    other = ImagePlan(per_taxon=3, seed=7, guidance=Guidance(2.0), sampling=Sampling(num_steps=3, batch_size=2))
    ours = generated_pictures(adapter, TAXA, plan, tmp_path / "ours")
    theirs = generated_pictures(adapter, TAXA[:0:-1], other, tmp_path / "theirs")
    for taxon in TAXA[1:]:
        mine, yours = (
            seeds_of([file for file, shown in zip(side.files, side.lineages, strict=True) if shown == taxon])
            for side in (ours, theirs)
        )
        assert mine == [picture_seed(7, taxon, i) for i in range(2)] == yours[:2]


def test_pictures_drawn_under_other_seeds_are_not_taken_for_these(adapter: Adapter, tmp_path: Path) -> None:
    """A folder of an earlier version holds pictures of seeds that all taxa share; these stay, and are not measured."""
    plan = ImagePlan(per_taxon=2, sampling=FEW)
    earlier = [Request(lineage, seed, plan.guidance) for lineage in TAXA for seed in (0, 1)]
    old = {str(picture.path) for picture in generate(adapter, earlier, tmp_path, FEW)}
    found = generated_pictures(adapter, TAXA, plan, tmp_path)
    assert old.isdisjoint(found.files)
    assert seeds_of(found.files) == [picture_seed(0, taxon, i) for taxon in TAXA for i in range(2)]
    assert all(Path(file).is_file() for file in old)


def test_a_mean_over_taxa_scatters_as_much_as_independent_pictures() -> None:
    """What a seed does to a picture, whatever it shows: common to all taxa it would not average out."""
    taxa = [Lineage.of({"family": "F", "genus": "G", "species": f"s{i}"}) for i in range(22)]

    def scatter(seed_of: Callable[[Lineage, int], int]) -> float:
        effects = [[np.random.default_rng(seed_of(taxon, i)).normal() for i in range(300)] for taxon in taxa]
        return float(np.mean(effects, axis=0).var() * len(taxa))  # 1: as of independent pictures

    assert 0.75 < scatter(lambda taxon, i: picture_seed(0, taxon, i)) < 1.3
    assert scatter(lambda _, i: i) > 15


def test_no_folder_of_a_large_job_holds_more_than_a_few_thousand_files() -> None:
    for number, most in ((173_570, 1_000), (500_000, 3_000), (5_000_000, 4_000)):
        digests = [hashlib.sha256(str(i).encode()).hexdigest()[:10] for i in range(min(number, 50_000))]
        folders = Counter(shelves.shelf(number, "taxon", digest) for digest in digests)
        assert max(folders.values()) * number / len(digests) < most


def test_a_table_is_never_half_of_itself(adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    list(generate(adapter, requests(1), tmp_path, FEW))
    before = (tmp_path / "metadata.csv").read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(csv.DictWriter, "writerows", full)
    with pytest.raises(DataError, match="No space left"):
        list(generate(adapter, requests(1, 2), tmp_path, FEW))
    assert (tmp_path / "metadata.csv").read_text() == before


def test_the_first_process_makes_what_another_leaves_undone(
    adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "PATIENCE_S", 0.0)
    made = list(generate(adapter, requests(1, 2), tmp_path, FEW, Shard(0, 2)))
    assert {picture.request for picture in made} == set(requests(1, 2))
    assert len(rows_of(tmp_path)) == len(made)


def test_the_folder_is_itself_a_source(adapter: Adapter, tmp_path: Path) -> None:
    list(generate(adapter, requests(0, 1), tmp_path / "made", FEW))
    prepare(tmp_path / "made", tmp_path / "prepared", PrepareSettings(ranks=RANKS), num_workers=1)
    dataset = PreparedDataset.open(tmp_path / "prepared")
    assert len(dataset) == 6
    assert {dataset.lineage(row) for row in range(6)} == set(TAXA)


def test_a_fall_back_stands_in_the_recipe_and_changes_no_other_file(adapter: Adapter, tmp_path: Path) -> None:
    lineage, note = requested_lineage(adapter, "Hemigymnus novus")
    request = Request(lineage, 0)
    plain = next(generate(adapter, [request], tmp_path, FEW))
    noted = next(generate(adapter, [request], tmp_path, FEW, notes={lineage: str(note)}))
    assert noted.path != plain.path
    with Image.open(noted.path) as image:
        assert json.loads(image.text["taxadiffusion"])["note"] == note
    assert {row["file_name"]: row["note"] for row in rows_of(tmp_path)} == {
        plain.path.relative_to(tmp_path).as_posix(): "", noted.path.relative_to(tmp_path).as_posix(): note,
    }  # fmt: skip


def test_a_context_stands_in_the_recipe_which_makes_the_picture_again(adapter: Adapter, tmp_path: Path) -> None:
    plain = next(generate(adapter, [Request(TAXA[0], 3, Guidance(2.0))], tmp_path / "plain", FEW))
    asked = ["generate", str(adapter.path), "--base", str(adapter.denoiser.backbone.path), "Zanclus cornutus"]
    asked += ["-n", "1", "--seed", "3", "--guidance-scale", "2", "--steps", "2", "--device", "cpu"]
    asked += ["--out", str(tmp_path / "drawn"), "--context-scale", "1.5"]
    result = CliRunner().invoke(app, [*asked, "--context", "over pink"])
    assert result.exit_code == 0, result.exception
    (row,) = rows_of(tmp_path / "drawn")
    path = tmp_path / "drawn" / row["file_name"]
    with Image.open(path) as image:
        recipe = json.loads(image.text["taxadiffusion"])
    assert (
        (recipe["context"], recipe["context_scale"]) == (row["context"], row["context_scale"]) == ("over pink", "1.5")
    )
    context = Context(recipe["context"], float(recipe["context_scale"]))
    request = Request(TAXA[0], int(recipe["seed"]), Guidance(float(recipe["guidance_scale"])), context=context)
    again = next(generate(adapter, [request], tmp_path / "again", FEW))
    assert again.path.name == path.name != plain.path.name
    assert np.array_equal(read_picture(again.path), read_picture(path))
    assert not np.array_equal(read_picture(plain.path), read_picture(path))
    with pytest.raises(SettingsError, match="context_scale: none there, 2 now"):
        next(generate(adapter, [replace(request, context=Context("over pink"))], tmp_path / "plain", FEW))
    refused = CliRunner().invoke(app, asked)
    assert "give it with --context CAPTION" in str(refused.exception)


def test_the_files_of_an_earlier_version_are_still_known(adapter: Adapter, tmp_path: Path) -> None:
    """Entries that a recipe got later are empty for them: neither the name of a file nor its row changes."""
    made = next(generate(adapter, requests(0)[:1], tmp_path, FEW))
    (row,) = rows_of(tmp_path)
    older = {key: value for key, value in row.items() if key not in NEWER}
    with (tmp_path / "metadata.csv").open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(older))
        table.writeheader()
        table.writerow(older)
    recipe = {key: value for key, value in older.items() if key != "file_name"}
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:10]
    assert made.path.stem.endswith(digest)
    again = next(generate(adapter, requests(0)[:1], tmp_path, FEW))
    assert (again.path, again.made) == (made.path, False)


def test_the_taxon_id_of_the_training_data_is_in_the_card_and_in_the_picture(adapter: Adapter, tmp_path: Path) -> None:
    taxonomy = adapter.taxonomy
    ids = {taxonomy.id_of(TAXA[0]): "5K5L8"}
    path = tmp_path / "adapter"
    base = str(adapter.denoiser.backbone.path)
    without = save_adapter(path, make(Path(base), ranks=RANKS, taxonomy=taxonomy), taxonomy, recipe={}, read_me="x")
    assert "taxon_ids" not in json.loads((path / "adapter.json").read_text(encoding="utf-8"))
    assert "taxon_ids" not in without.model_dump_json()
    denoiser = make(Path(base), ranks=RANKS, taxonomy=taxonomy)
    save_adapter(path, denoiser, taxonomy, recipe={}, read_me="x", notes=CardNotes(taxon_ids=ids))
    kept = load_adapter(path, base=base)
    assert kept.card.taxon_ids == ids
    made = list(generate(kept, requests(0)[:2], tmp_path / "made", FEW))
    assert [row["source_taxon_id"] for row in rows_of(tmp_path / "made")] == ["5K5L8", ""]
    with Image.open(made[0].path) as image:
        assert 'dwc:taxonID="5K5L8"' in image.text["XML:com.adobe.xmp"]
    prepare(tmp_path / "made", tmp_path / "prepared", PrepareSettings(ranks=RANKS), num_workers=1)
    assert list(PreparedDataset.open(tmp_path / "prepared").source_taxon_ids().values()) == ["5K5L8"]
    card = json.loads((path / "adapter.json").read_text(encoding="utf-8"))
    (path / "adapter.json").write_text(json.dumps(card | {"taxon_ids": {"99": "x"}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="taxon_ids names taxon 99"):
        load_adapter(path, base=base)


def test_a_name_gives_its_lineage_at_the_rank_that_was_asked_for(adapter: Adapter) -> None:
    assert requested_lineage(adapter, "Zanclus cornutus")[0] == TAXA[0]
    assert requested_lineage(adapter, "Zanclus cornutus", "family")[0] == TAXA[0].truncated("family")
    genus, note = requested_lineage(adapter, "Hemigymnus novus")
    assert genus == TAXA[1].truncated("genus")
    assert note
    with pytest.raises(DataError, match="Zanclus cornutus"):
        requested_lineage(adapter, "Zanclus cornotus")
    with pytest.raises(DataError, match="tribe"):
        requested_lineage(adapter, "Zanclus cornutus", "tribe")
    with pytest.raises(DataError, match="no species"):
        requested_lineage(adapter, "Labridae", "species")


def test_a_common_name_is_told_with_the_taxon_to_ask_for(adapter: Adapter, tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("taxon,name,kind\nZanclus cornutus,Moorish idol,common name\n")
    known = replace(adapter, path=tmp_path)
    with pytest.raises(DataError, match="'moorish idol' is a common name; ask for 'Zanclus cornutus'"):
        requested_lineage(known, "moorish idol")
    with pytest.raises(DataError, match="no taxon 'Moorish'"):
        requested_lineage(known, "Moorish")


def test_all_species_are_those_of_the_finest_rank(adapter: Adapter) -> None:
    assert set(species_of(adapter)) == set(TAXA)


def drawn(*arguments: object) -> tuple[int, str]:
    """`taxadiffusion generate` as `main` runs it: exit code, and what it printed."""
    result = CliRunner().invoke(app, ["generate", *map(str, arguments), "--steps", "1", "-n", "1", "--device", "cpu"])
    if isinstance(result.exception, TaxaDiffusionError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_species_that_share_a_name_are_all_drawn_and_each_can_be_named(tmp_path: Path) -> None:
    ranks = ("kingdom", "family", "genus", "species")
    shared = [
        Lineage.of({"kingdom": kingdom, "family": family, "genus": "Laelia", "species": "rosea"})
        for kingdom, family in (("Animalia", "Erebidae"), ("Plantae", "Orchidaceae"))
    ]
    base = write_tiny_base(tmp_path / "base")
    taxonomy = taxonomy_of(shared, ranks)
    model = tmp_path / "model"
    save_adapter(model, make(base, ranks=ranks, taxonomy=taxonomy), taxonomy, recipe={}, read_me="# Laelia\n")

    def shown(out: Path) -> set[str]:
        return {row["family"] for row in rows_of(out)}

    code, output = drawn(model, "--base", base, "--all-species", "--out", tmp_path / "all")
    assert (code, "2 pictures on cpu" in output) == (0, True), output
    assert shown(tmp_path / "all") == {"Erebidae", "Orchidaceae"}
    code, message = drawn(model, "--base", base, "Laelia rosea", "--out", tmp_path / "one")
    assert code == 3
    advised = [ast.literal_eval(line.strip()) for line in message.splitlines()[1:]]
    assert len(advised) == 2
    for name in advised:
        assert drawn(model, "--base", base, name, "--out", tmp_path / "one")[0] == 0
    assert shown(tmp_path / "one") == {"Erebidae", "Orchidaceae"}
    code, message = drawn(model, "--base", base, "--all-species", "--guidance-scale", 9, "--out", tmp_path / "all")
    assert (code, "guidance_scale: 6 there, 9 now" in message) == (2, True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model's folder and its base's."""
    folder = tmp_path_factory.mktemp("model")
    base = write_tiny_base(folder / "base")
    taxonomy = taxonomy_of(TAXA, RANKS)
    save_adapter(folder / "model", make(base, ranks=RANKS, taxonomy=taxonomy), taxonomy, recipe={}, read_me="x\n")
    return folder / "model", base


def test_a_mix_a_solver_and_scales_of_ranks_are_asked_for_by_command_and_stand_in_the_recipe(
    model: tuple[Path, Path], tmp_path: Path
) -> None:
    one, other = TAXA[0].label, TAXA[1].label
    asked = (model[0], "--base", model[1], one)
    plain, changed = tmp_path / "plain", tmp_path / "changed"
    assert drawn(*asked, "--out", plain)[0] == 0
    mixed = ("--towards", other, "--fraction", 0.25, "--sampler", "euler", "--rank-scale", "species=3")
    code, output = drawn(*asked, *mixed, "--rank-scale", "family=2", "--guidance-scale", 1.5, "--out", changed)
    assert code == 0, output
    (before,), (row,) = rows_of(plain), rows_of(changed)
    assert [before[key] for key in ("towards", "scheduler", "guidance_rank_scales", "note")] == ["", "default", "", ""]
    assert (row["towards"], row["fraction"], row["scheduler"]) == (str(TAXA[1]), "0.25", "euler")
    assert row["guidance_rank_scales"] == "family=2 species=3"
    assert row["note"] == f"a mix: 0.25 of the way to {other}"
    assert not np.array_equal(read_picture(plain / before["file_name"]), read_picture(changed / row["file_name"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--towards", TAXA[1].label), "--towards TAXON and --fraction F go together"),
        (("--fraction", 0.5), "--towards TAXON and --fraction F go together"),
        (("--towards", TAXA[1].label, "--fraction", 0.5, "--lineage-strip"), "does not go with --lineage-strip"),
        (
            ("--towards", TAXA[1].names[0][1], "--fraction", 0.5, "--rank-scale", "species=2"),
            "differ in depth, so this guidance cannot act on a mix",
        ),
        (("--rank-scale", "tribe=2"), "'tribe' is none of the ranks below the base: family"),
        (("--rank-scale", "family=2", "--guidance-rank", "family"), "'family' is none of the ranks below the base"),
        (("--rank-scale", "species=2", "--rank-scale", "species=3"), "'species' is given twice"),
        (("--rank-scale", "species=two"), "write it as RANK=NUMBER, e.g. species=2"),
        (("--rank-scale", "species=inf"), "guidance scales must be numbers, got 6, inf"),
        (("--sampler", "flow_euler"), "sampler 'flow_euler' cannot follow v_prediction; choose one of dpm, ddim"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    model: tuple[Path, Path], tmp_path: Path, options: tuple[object, ...], message: str
) -> None:
    code, told = drawn(model[0], "--base", model[1], TAXA[0].label, *options, "--out", tmp_path / "out")
    assert code == 2, told
    assert message in told
    assert not (tmp_path / "out").exists()


def test_the_commands_solvers_are_the_schedules() -> None:
    assert get_args(CommandSamplerName) == get_args(SamplerName)
