"""Laws of phylogenies: what the file says is what the descent holds, and what it does not say is an error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage
from taxadiffusion.simulate import Clade
from taxadiffusion.taxonomy.brownian import posterior
from taxadiffusion.taxonomy.phylogeny import descent_between, placed, read_phylogeny


def species(family: str, genus: str, epithet: str) -> Lineage:
    return Lineage.of({"family": family, "genus": genus, "species": epithet})


KNOWN = [
    species("Labridae", "Coris", "aygula"),
    species("Labridae", "Coris", "gaimard"),
    species("Labridae", "Cheilinus", "undulatus"),
    species("Zanclidae", "Zanclus", "cornutus"),
]
LABRIDAE = KNOWN[0].truncated("family")
DATED = "(((Coris_aygula:1,Coris_gaimard:1)Coris:3,'Cheilinus undulatus':4):6,Zanclus_cornutus:10)root:5;"


def write(folder: Path, text: str) -> Path:
    path = folder / "tree.nwk"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("nexus", [False, True])
def test_branch_lengths_weigh_the_descendants(tmp_path: Path, *, nexus: bool) -> None:
    text = f"#NEXUS\nbegin trees;\ntree one = [&R] {DATED}\nend;\n" if nexus else DATED
    found = placed(LABRIDAE, KNOWN, read_phylogeny(write(tmp_path, text)))
    assert (found.missing, found.strangers) == ((), 0)
    told = posterior(found.descent)
    # the two Coris meet at 1/2 + 3 together, Cheilinus stands 4 away: weights by the inverse of these
    share = (1 / 3.5) / (1 / 3.5 + 1 / 4)
    assert dict(zip(found.descent.tips, told.weights, strict=True)) == pytest.approx(
        {KNOWN[0]: share / 2, KNOWN[1]: share / 2, KNOWN[2]: 1 - share}
    )
    assert told.variance == pytest.approx(1 / (1 / 3.5 + 1 / 4))


def test_a_simulated_clades_own_tree_gives_back_its_times(tmp_path: Path) -> None:
    clade = Clade.grow(3, 24)
    tree = read_phylogeny(write(tmp_path, clade.newick()))
    for taxon, node in clade.ancestors().items():
        found = placed(taxon, clade.species, tree)
        assert not found.missing
        assert not found.strangers  # a clade's taxa are whole branches
        place = dict(zip(found.descent.tips, found.descent.tip_nodes, strict=True))
        for tip in place.values():
            length = 0.0
            while tip:
                length += found.descent.lengths[tip]
                tip = found.descent.parents[tip]
            assert length == pytest.approx(1.0 - clade.times[node], abs=1e-4)
        assert np.isclose(posterior(found.descent).weights.sum(), 1.0)


def test_what_the_tree_lacks_and_whom_it_puts_among_them_is_told(tmp_path: Path) -> None:
    text = "((Coris_aygula:1,Zanclus_cornutus:1):2,(Coris_gaimard:2,(Zanclus_other:1,(Coris_b:1,Who_knows:1):1):1):1);"
    found = placed(LABRIDAE, KNOWN, read_phylogeny(write(tmp_path, text)))
    assert found.missing == (KNOWN[2],)
    assert set(found.descent.tips) == set(KNOWN[:2])
    assert found.strangers == 2  # the two Zanclus; of a species that the model does not know nothing can be said


@pytest.mark.parametrize(
    "text",
    [
        DATED.replace("Coris_aygula", "'Coris_aygula'").replace("Zanclus_cornutus", "zanclus_Cornutus"),
        "\ufeff[a note]" + DATED.replace(",", ",\r\n"),
        "[dated] #nexus\nbegin trees;\ntranslate 1 Coris_aygula, 2 Coris_gaimard;\ntree one = "
        + DATED.replace("Coris_aygula", "1").replace("Coris_gaimard", "2")
        + "\nend;",
    ],
)
def test_a_tree_is_the_same_in_whatever_way_it_is_written(tmp_path: Path, text: str) -> None:
    same = placed(LABRIDAE, KNOWN, read_phylogeny(write(tmp_path, DATED)))
    assert placed(LABRIDAE, KNOWN, read_phylogeny(write(tmp_path, text))) == same


def test_the_way_leads_through_the_node_where_the_two_part(tmp_path: Path) -> None:
    """Not through the taxon that holds both by name: here a Coris and the Zanclus parted last."""
    tree = read_phylogeny(
        write(tmp_path, "(((Coris_aygula:1,Zanclus_cornutus:1):2,Coris_gaimard:3):9,Cheilinus_undulatus:9);")
    )
    found = descent_between(KNOWN[0], KNOWN[3], KNOWN, tree)
    assert posterior(found).weights.tolist() == [0.5, 0.5]
    assert set(found.tips) == {KNOWN[0], KNOWN[3]}
    genus = descent_between(KNOWN[0].truncated("genus"), KNOWN[3], KNOWN, tree)
    assert set(genus.tips) == {KNOWN[0], KNOWN[1], KNOWN[3]}
    lacking = read_phylogeny(write(tmp_path, "(Coris_aygula:1,Coris_gaimard:1);"))
    with pytest.raises(DataError, match="has no tip of Zanclus cornutus"):
        descent_between(KNOWN[0], KNOWN[3], KNOWN, lacking)


@pytest.mark.parametrize("factor", [1e-200, 1.0, 1e200])
def test_the_unit_of_time_does_not_matter(tmp_path: Path, factor: float) -> None:
    text = f"((Coris_aygula:{factor},Coris_gaimard:{factor}):{3 * factor},Cheilinus_undulatus:{4 * factor});"
    told = posterior(placed(LABRIDAE, KNOWN, read_phylogeny(write(tmp_path, text))).descent)
    assert told.weights.sum() == pytest.approx(1)
    assert told.variance / factor == pytest.approx(1 / (1 / 3.5 + 1 / 4))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read as a Newick or NEXUS tree"),
        ("(Coris_aygula,Coris_gaimard", "cannot be read"),
        ("(Coris_aygula:x,Coris_gaimard:1);", "cannot be read .*'x'"),
        ("hello", "holds 0 trees"),
        ("(a:1,b:1);(a:1,b:1);", "holds 2 trees"),
        ("(Coris_aygula:1,:1);", "a tip has no name"),
        ("(Coris_aygula:1,Coris_aygula:1);", "Coris aygula"),
        ("(Coris_aygula:2,5,Coris_gaimard:1,7);", "a tip is named 5, .*point"),
        ("(Coris_aygula:1,5e-3,Coris_gaimard:1,7e-2);", "a tip is named 5e-3"),
        ("[&U] (Coris_aygula:1,Coris_gaimard:1,Cheilinus_undulatus:1);", "not rooted"),
        ("#NEXUS\nbegin trees;\ntree one = [&U] (Coris_aygula:1,Coris_gaimard:1);\nend;", "not rooted"),
        ("#NEXUS\nbegin taxa;\ntaxlabels a b;\nend;\nbegin trees;\ntree x = (a:1,b:1);\nend;", "cannot be read"),
        ("#NEXUS\nbegin taxa;\ndimensions ntax=2;\ntaxlabels a", "cannot be read"),
        ("(" * 3000 + "a" + ",b:1)" * 3000 + ";", "nested more deeply|Multiple|two tips"),
    ],
)
def test_what_is_no_tree_is_one_error(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_phylogeny(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("((Coris_aygula:1,Coris_gaimard):1,Other:1);", "way to Coris gaimard has no length, or a negative one"),
        ("((Coris_aygula:1,Coris_gaimard:-1):1,Other:1);", "negative"),
        ("(Other_one:1,Other_two:1);", "of the 3 descendants of Labridae, .* none is a tip .* named like “other one”"),
        ("(Coris_aygula:1,Other_two:1);", "one, Coris aygula is a tip of this tree, and two are needed"),
    ],
)
def test_a_tree_that_does_not_tell_is_one_error(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        placed(LABRIDAE, KNOWN, read_phylogeny(write(tmp_path, text)))


def test_branches_above_the_ancestor_need_no_length(tmp_path: Path) -> None:
    tree = read_phylogeny(write(tmp_path, "((Coris_aygula:1,Coris_gaimard:1),Other);"))
    assert len(placed(LABRIDAE, KNOWN, tree).descent.tips) == 2


def test_two_species_of_one_name_are_not_told_apart(tmp_path: Path) -> None:
    order = [Lineage.of({"order": "O", "family": f, "genus": "Coris", "species": "aygula"}) for f in ("A", "B")]
    with pytest.raises(DataError, match="the tip Coris aygula may be order: O > family: A"):
        placed(Lineage.of({"order": "O"}), order, read_phylogeny(write(tmp_path, DATED)))
