"""`check` finds what is wrong in a taxonomy, all at once, and repairs are what a person wrote down and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from taxadiffusion.cli import app
from taxadiffusion.cli.check import format_options
from taxadiffusion.dataset import PrepareSettings, prepare
from taxadiffusion.dataset.check import CheckReport, is_restricted
from taxadiffusion.dataset.fixes import Fixes
from taxadiffusion.dataset.inspect import CheckSettings, inspect_source
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.names import Lineage
from tests.scratch import scratch

RANKS = ("kingdom", "class", "order", "family", "genus", "species")
FISHNET_FIXES = Path(__file__).resolve().parents[2] / "configs/fishnet-fixes.yaml"


def write_source(
    folder: Path, *rows: str, header: str = "file_name,kingdom,class,order,family,genus,species,license"
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    numbered = [f"{i}.jpg,{row}" for i, row in enumerate(rows)]
    (folder / "metadata.csv").write_text("\n".join([header, *numbered]) + "\n", encoding="utf-8")
    return folder


def inspect(folder: Path, *rows: str, **options: Any) -> CheckReport:
    return inspect_source(write_source(folder, *rows), CheckSettings(tables_only=True, **options))


def test_fishnets_numbers(shared: Path) -> None:
    source = shared / "data/annotations/fishnet"
    published = inspect_source(source, CheckSettings(options={"order_column": "Order"}, tables_only=True))
    assert (published.rows, published.rows_without_species, published.genus_filled) == (18_901, 10_406, 90)
    assert published.family_order_conflicts == 31
    repaired = inspect_source(source, CheckSettings(tables_only=True))
    assert repaired.family_order_conflicts == 0
    kinds = [(c.rank, c.parent_rank) for c in repaired.conflicts]
    assert (kinds.count(("order", "class")), kinds.count(("genus", "family"))) == (28, 11)
    assert (repaired.mixed_spellings[0].first, repaired.mixed_spellings[0].second) == ("Actinopterygii", "Actinopteri")
    assert repaired.missing_ranks == {"class": 90}
    shared_epithets = repaired.epithets_in_several_genera
    assert (len(shared_epithets), shared_epithets["maculatus"]) == (829, 26)  # 823 without the 90 rows of filled genus


def test_the_shipped_rules_repair_fishnet(shared: Path) -> None:
    report = inspect_source(shared / "data/annotations/fishnet", CheckSettings(tables_only=True, fix=FISHNET_FIXES))
    assert (report.contradictions, report.missing_ranks, report.fixes_unused) == (0, {}, ())
    assert report.fixes_applied["rename class Actinopteri to Actinopterygii"] == 8_043
    assert report.fixes_applied["fill missing class"] == 90
    assert (report.rows, report.rows_without_species) == (18_901, 10_406)


def test_the_rare_species_table(shared: Path) -> None:
    report = inspect_source(shared / "data/annotations/treeoflife/rare_species", CheckSettings(tables_only=True))
    assert (report.rows, report.taxa_per_rank["species"], report.contradictions) == (11_983, 400, 0)
    assert report.long_tail["species"]["21-100"] == 400


def test_all_contradictions_are_listed_at_once_with_rows(tmp_path: Path) -> None:
    report = inspect(
        tmp_path,
        "Animalia,Aves,A,Fam,Genus,one,",
        "Animalia,Aves,B,Fam,Genus,two,",
        "Animalia,Aves,A,Second,Genus,three,",
    )
    found = {(c.rank, c.name, c.parent_rank): [(name, row) for name, _, row in c.parents] for c in report.conflicts}
    assert found == {
        ("family", "Fam", "order"): [("A", "metadata.csv:2"), ("B", "metadata.csv:3")],
        ("genus", "Genus", "family"): [("Fam", "metadata.csv:2"), ("Second", "metadata.csv:4")],
    }
    assert report.family_order_conflicts == 1


def test_homonyms_across_kingdoms_are_no_contradiction(tmp_path: Path) -> None:
    report = inspect(
        tmp_path, "Animalia,Insecta,L,Erebidae,Laelia,rosea,", "Plantae,Liliopsida,A,Orchidaceae,Laelia,rosea,"
    )
    assert report.contradictions == 0
    kingdoms = ("Animalia", "Plantae")
    assert report.homonyms_across_kingdoms == {"Laelia": kingdoms, "Laelia rosea": kingdoms}


def test_misspellings_within_a_genus_but_not_across(tmp_path: Path) -> None:
    report = inspect(
        tmp_path,
        *["Animalia,Aves,A,F,Genus,leleupi,"] * 3,
        "Animalia,Aves,A,F,Genus,leloupi,",
        "Animalia,Aves,A,F,Genus,muelleri,",
        "Animalia,Aves,A,F,Genus,mülleri,",
        "Animalia,Aves,A,F,Another,leleupii,",
        "Animalia,Aves,A,F,Genus,alba,",
    )
    pairs = {(pair.first, pair.second) for pair in report.misspellings if pair.rank == "species"}
    assert ("Genus leleupi", "Genus leloupi") in pairs
    assert {"Genus muelleri", "Genus mülleri"} in [set(pair) for pair in pairs]
    assert len(pairs) == 2


def test_synonyms_both_in_use_are_contradictions(tmp_path: Path) -> None:
    table = tmp_path / "synonyms.csv"
    table.write_text("synonym,accepted\nAus bus,Aus cus\nXus yus,Aus cus\n")
    report = inspect(tmp_path / "s", "Animalia,Aves,A,F,Aus,bus,", "Animalia,Aves,A,F,Aus,cus,", synonyms=table)
    assert [(pair.first, pair.second, pair.where) for pair in report.synonyms] == [
        ("Aus cus", "Aus bus", "synonyms.csv:2")
    ]
    assert report.contradictions == 1


def test_gaps_rarity_and_licences_are_counted(tmp_path: Path) -> None:
    report = inspect(
        tmp_path,
        "Animalia,Aves,,F,Aus,bus,CC-BY-NC",
        "Animalia,Aves,,F,Aus,,CC0",
        "Animalia,Aves,A,F,Aus,cf. bus,https://creativecommons.org/licenses/by-nd/4.0/",
        "Animalia,Aves/misc,A,,,,",
    )
    assert report.missing_ranks == {"order": 2}
    assert report.rows_without_species == 3
    assert report.restricted_license_images == 2
    assert report.qualifiers == {"cf.": 1}
    assert [name for _, name, _ in report.odd_names] == ["Aves/misc"]
    assert report.long_tail["species"] == {"1": 1, "2-5": 0, "6-20": 0, "21-100": 0, ">100": 0}
    assert report.monotypic["genus"] == 1


@pytest.mark.parametrize(
    ("license_", "restricted"),
    [("CC-BY-NC", True), ("CC BY-NC-ND 4.0", True), ("http://x/licenses/by-nd/3.0/", True), ("CC-BY", False),
     ("Attribution-NonCommercial License", True), ("CC0", False), ("all rights reserved, ANC", False)],
)  # fmt: skip
def test_restricted_licences(license_: str, restricted: bool) -> None:
    assert is_restricted(license_) is restricted


def test_repairs_rename_move_fill_and_remove(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rename:\n  - {rank: class, from: Birds, to: Aves}\n  - {rank: species, from: Aus bus, to: Cus bus}\n"
        "move:\n  - {rank: family, name: F, under: {order: B}}\n"
        "remove:\n  - {rank: order, name: misc order}\nfill: [class]\n"
    )
    rows = ["Animalia,Birds,A,F,Aus,bus,", "Animalia,,B,F,Aus,dus,", "Animalia,Aves,misc order,G,Gus,eus,"]
    report = inspect(tmp_path / "s", *rows, fix=rules)
    assert report.fixes_unused == ()
    assert report.fixes_applied == {
        "rename class Birds to Aves": 1,
        "rename species Aus bus to Cus bus": 1,
        "move family F under order: B": 1,
        "remove order misc order": 1,
        "fill missing class": 1,
    }
    assert report.missing_ranks == {"order": 1}
    assert report.taxa_per_rank == {"kingdom": 1, "class": 1, "order": 1, "family": 2, "genus": 3, "species": 3}


def test_a_rank_is_filled_only_where_all_others_agree() -> None:
    fixes = Fixes.load(_rules("fill: [class]\n"))
    rows = [
        {"class": "X", "order": "A"},
        {"class": "X", "order": "A"},
        {"class": "X", "order": "B"},
        {"class": "Y", "order": "B"},
    ]
    fixes.learn(Lineage.of(row) for row in rows)
    assert fixes.apply(Lineage.of({"order": "A"})).get("class") == "X"
    assert fixes.apply(Lineage.of({"order": "B"})).get("class") is None


def _rules(text: str) -> Path:
    path = scratch("rules-") / "rules.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    "text",
    ["", "- a", "rename: 3", "rename: [{rank: class}]", "rename: [{rank: klass, from: a, to: b}]", "fill: [colour]",
     "rename: [{rank: species, from: bus, to: Aus cus}]", "move: [{rank: family, name: F, under: {genus: A}}]",
     "merge: []", "a: [b", "remove: [{rank: class, name: ''}]"],
)  # fmt: skip
def test_rules_that_cannot_be_understood_are_settings_errors_naming_the_file(text: str) -> None:
    with pytest.raises(SettingsError, match=r"rules\.yaml"):
        Fixes.load(_rules(text))


def test_a_source_without_usable_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of its 2 rows"):
        inspect(tmp_path, ",,,,,,", "nan,N/A,unknown,,,,")


def test_missing_pictures_are_counted_unless_tables_only(tmp_path: Path) -> None:
    write_source(tmp_path, "Animalia,Aves,A,F,Aus,bus,", "Animalia,Aves,A,F,Aus,cus,")
    (tmp_path / "1.jpg").touch()
    assert inspect_source(tmp_path).pictures_missing == 1
    assert inspect_source(tmp_path, CheckSettings(tables_only=True)).pictures_missing == 0


def test_a_prepared_set_gives_the_same_report_as_its_source(tmp_path: Path) -> None:
    rows = ["Animalia,Aves,A,F,Aus,bus,CC0", "Animalia,Aves,B,F,Aus,cf. bus,CC-BY-NC", ",,,,,,"]
    source = write_source(tmp_path / "s", *rows)
    prepare(
        source,
        tmp_path / "p",
        PrepareSettings(verify=False, allow_contradictions=True, max_bad_fraction=0.5),
        num_workers=1,
    )
    before, after = inspect_source(source, CheckSettings(tables_only=True)), inspect_source(tmp_path / "p")
    same = (
        "rows",
        "rows_rejected",
        "rows_without_species",
        "taxa",
        "taxa_per_rank",
        "conflicts",
        "licenses",
        "qualifiers",
    )
    for name in same:
        assert getattr(before, name) == getattr(after, name), name
    with pytest.raises(SettingsError, match="prepared"):
        inspect_source(tmp_path / "p", CheckSettings(fix=FISHNET_FIXES))


def test_the_command_writes_json_and_leaves_with_3_on_contradictions(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", "Animalia,Aves,A,F,Aus,bus,", "Animalia,Aves,B,F,Aus,cus,")
    report = tmp_path / "report.json"
    command = ["check", str(source), "--tables-only", "--json", str(report), "--ranks", "order,family"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 3, result.output
    value = json.loads(report.read_text(encoding="utf-8"))
    assert (value["rows"], value["taxa"], value["family_order_conflicts"], value["contradictions"]) == (2, 4, 1, 1)
    assert {"rows_without_species", "genus_filled"} <= set(value)
    assert "below two parents" in result.output
    clean = write_source(tmp_path / "c", "Animalia,Aves,A,F,Aus,bus,")
    assert CliRunner().invoke(app, ["check", str(clean), "--tables-only"]).exit_code == 0


def test_the_export_command_writes_the_tree(tmp_path: Path) -> None:
    source = write_source(tmp_path / "s", "Animalia,Aves,A,F,Aus,bus,", "Animalia,Aves,A,F,Aus,cus,")
    prepare(source, tmp_path / "p", PrepareSettings(verify=False), num_workers=1)
    result = CliRunner().invoke(app, ["export", str(tmp_path / "p"), str(tmp_path / "tree.nwk"), "--to", "newick"])
    assert result.exit_code == 0, result.output
    text = (tmp_path / "tree.nwk").read_text(encoding="utf-8")
    assert text == "((((('Aus bus','Aus cus')'Aus')'F')'A')'Aves')'Animalia';\n"


def test_a_formats_options_follow_as_name_value() -> None:
    arguments = ["--order-column", "Order", "--box-policy=none"]
    assert format_options(arguments) == {"order_column": "Order", "box_policy": "none"}
    for wrong in (["--order-column"], ["order"], ["--a", "b", "c", "d"]):
        with pytest.raises(SettingsError):
            format_options(wrong)
