"""Laws of conditions: the sum over ranks, holes and truncations, frozen prefixes, and the baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from taxadiffusion.condition import (
    ClassEmbeddingConditioner,
    ClassEmbeddingSettings,
    Conditioner,
    PromptConditioner,
    PromptSettings,
    TaxonAdapterConditioner,
    TaxonAdapterSettings,
    TaxonomyConditioner,
    TaxonomySettings,
    num_parts_needed,
    prompt,
)
from taxadiffusion.condition.methods import build_conditioner
from taxadiffusion.errors import CheckpointError, DataError, SettingsError
from taxadiffusion.names import Lineage

RANKS = ("order", "family", "genus", "species")
CLARKII = Lineage.of({"order": "Perciformes", "family": "Pomacentridae", "genus": "Amphiprion", "species": "clarkii"})
CORNUTUS = Lineage.of({"order": "Perciformes", "family": "Zanclidae", "genus": "Zanclus", "species": "cornutus"})
SETTINGS = TaxonomySettings(num_heads=2, feed_forward=32)


class States:
    """Token states that follow from the text alone; counts what it is asked for."""

    width, num_tokens, content_hash = 16, 5, "states"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        rows = [
            torch.randn(5, 16, generator=torch.Generator().manual_seed(sum(text.encode()) + 1000 * len(text)))
            for text in texts
        ]
        return torch.stack(rows)


def make(settings: TaxonomySettings = SETTINGS, **kwargs: int) -> TaxonomyConditioner:
    return TaxonomyConditioner(RANKS, States(), settings, **kwargs)


def encoded(conditioner: TaxonomyConditioner, rank: str, text: str) -> Tensor:
    encoder: Tensor = conditioner.encoders[rank](conditioner.states([text]))
    return encoder


def test_the_condition_is_the_sum_over_ranks() -> None:
    """METHOD: c^(i) = Σ_{r ≤ i} E_r(T(s_r))."""
    conditioner = make().eval()
    for depth in range(1, 5):
        expected = sum(encoded(conditioner, r, f"{r}: {CLARKII.get(r)}") for r in RANKS[:depth])
        torch.testing.assert_close(conditioner([CLARKII.truncated(RANKS[depth - 1])]), expected)


def test_a_hole_is_none_and_a_truncation_is_nothing() -> None:
    conditioner = make().eval()
    whole, holed = conditioner([CLARKII, CLARKII.without("family")])
    difference = encoded(conditioner, "family", "family: none") - encoded(
        conditioner, "family", "family: Pomacentridae"
    )
    torch.testing.assert_close(holed - whole, difference[0])
    cut, own = conditioner([CLARKII.truncated("genus"), CLARKII.without("species")])
    torch.testing.assert_close(own - cut, encoded(conditioner, "species", "species: none")[0])
    alone = CLARKII.truncated("order").without("order")
    torch.testing.assert_close(conditioner([alone]), encoded(conditioner, "order", "order: none"))


def test_every_conditioner_takes_a_hole_at_any_rank() -> None:
    for conditioner in (
        make(),
        PromptConditioner(RANKS, States(), PromptSettings()),
        ClassEmbeddingConditioner(RANKS, States(), ClassEmbeddingSettings(), [CLARKII]),
        TaxonAdapterConditioner(RANKS, States(), TaxonAdapterSettings(), [CLARKII]),
        TaxonAdapterConditioner(RANKS, States(), TaxonAdapterSettings(embedding_width=3), [CLARKII]),
    ):
        cuts = [CLARKII.truncated(rank) for rank in RANKS]
        holes = [cut.without(rank) for cut in cuts for rank in cut.ranks]
        assert torch.isfinite(conditioner.eval()(holes)).all()


def test_the_empty_lineage_is_the_bases_own_null() -> None:
    conditioner = make().eval()
    assert torch.equal(conditioner([Lineage()]), conditioner.states([""]))


def test_ranks_the_model_does_not_know_change_nothing() -> None:
    conditioner = make().eval()
    more = Lineage.of([("kingdom", "Animalia"), *CLARKII.names])
    assert torch.equal(conditioner([more]), conditioner([CLARKII]))


def test_a_lineage_of_unknown_ranks_is_an_error_and_not_the_null() -> None:
    with pytest.raises(DataError, match=r"kingdom: Animalia.*order, family, genus, species"):
        make()([Lineage.of({"kingdom": "Animalia"})])


def test_a_lineage_alone_is_the_lineage_in_a_batch_and_is_encoded_once() -> None:
    conditioner = make().eval()
    batch = [CLARKII, Lineage(), CORNUTUS, CLARKII.truncated("order"), CLARKII]
    together = conditioner(batch)
    for row, lineage in enumerate(batch):
        torch.testing.assert_close(conditioner([lineage])[0], together[row], rtol=1e-5, atol=1e-5)
    states = conditioner.states
    assert isinstance(states, States)
    states.asked.clear()
    conditioner(batch)
    assert len(states.asked) == len(set(states.asked)) == 8


def test_a_frozen_prefix_is_computed_once_and_equals_the_plain_path() -> None:
    conditioner = make().eval()
    plain = conditioner([CLARKII, CORNUTUS])
    conditioner.train_only(["encoder.species"])
    conditioner.eval()
    states = conditioner.states
    assert isinstance(states, States)
    states.asked.clear()
    first = conditioner([CLARKII, CORNUTUS])
    torch.testing.assert_close(first, plain, rtol=1e-5, atol=1e-5)
    assert len(states.asked) == 7  # order, two families, two genera, two species
    states.asked.clear()
    assert torch.equal(conditioner([CLARKII, CORNUTUS]), first)
    assert states.asked == ["species: clarkii", "species: cornutus"]


def test_what_is_kept_does_not_depend_on_the_batch_it_was_first_seen_in() -> None:
    """A resumed run meets names in other company; its conditions must have the same bits."""
    one, other = make(), make()
    for conditioner in (one, other):
        conditioner.train_only(["encoder.species"])
        conditioner.eval()
    one([CLARKII])
    assert torch.equal(one([CORNUTUS, CLARKII]), other([CORNUTUS, CLARKII]))


def test_kept_states_are_bounded_and_forgotten_when_weights_change() -> None:
    small = make(cache_bytes=3 * 5 * 16 * 4)
    small.train_only([])
    plain = make().eval()([CLARKII, CORNUTUS])
    for _ in range(2):
        torch.testing.assert_close(small([CLARKII, CORNUTUS]), plain, rtol=1e-5, atol=1e-5)
    assert len(small._kept) == 3
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.1)
    small.loaded()
    assert not torch.allclose(small([CLARKII, CORNUTUS]), plain, atol=1e-2)


@pytest.mark.parametrize("change", ["loaded", "cast", "train_only"])
def test_kept_states_are_forgotten_whatever_changes_the_weights(change: str) -> None:
    conditioner = make(SETTINGS)
    conditioner.train_only([])
    family = CLARKII.truncated("family")
    before = conditioner([family])
    assert torch.equal(conditioner([family]), before)
    with torch.no_grad():
        for parameter in conditioner.encoders["family"].parameters():
            parameter.add_(0.1)
    assert torch.equal(conditioner([family]), before)  # nobody said so
    if change == "loaded":
        conditioner.loaded()
    elif change == "cast":
        conditioner.to(torch.float64).to(torch.float32)
    else:
        conditioner.train_only(["encoder.family"])
        conditioner.eval()
    after = conditioner([family])
    assert not torch.allclose(after, before, atol=1e-2)
    plain = sum(encoded(conditioner, rank, f"{rank}: {CLARKII.get(rank)}") for rank in RANKS[:2])
    torch.testing.assert_close(after, plain, rtol=1e-5, atol=1e-5)


def test_norm_first_hands_names_on_past_attention_and_feed_forward() -> None:
    """What a layer adds to every name alike, however large, leaves their difference as it is."""
    conditioner = make(TaxonomySettings(num_heads=2, feed_forward=32, norm_first=True)).eval()
    encoder = conditioner.encoders["family"]
    with torch.no_grad():
        for layer in encoder.layers:
            layer.self_attn.out_proj.weight.zero_()
            layer.linear2.weight.zero_()
            layer.linear2.bias.copy_(torch.linspace(-100.0, 50.0, 16))
    encoder.norm = torch.nn.Identity()
    names = ["family: Pomacentridae", "family: Zanclidae"]
    one, other = (encoded(conditioner, "family", name) for name in names)
    states = conditioner.states(names)
    torch.testing.assert_close((one - other)[0], states[0] - states[1], atol=1e-4, rtol=0)


def test_the_spread_of_names_shows_a_collapsed_encoder() -> None:
    conditioner = make().eval()
    encoder = conditioner.encoders["genus"]
    with torch.no_grad():
        encoder.layers[-1].norm2.weight.zero_()
        encoder.layers[-1].norm2.bias.fill_(1.0)
    spread = conditioner.name_spread([CLARKII, CORNUTUS, CORNUTUS])
    assert set(spread) == {"family", "genus", "species"}  # both have one order
    assert spread["genus"] == 0.0
    one, other = (encoded(conditioner, "family", f"family: {name}") for name in ("Pomacentridae", "Zanclidae"))
    halves = (one - other).square().mean() / 4  # of two values, each lies half of their difference from the mean
    expected = (halves / torch.cat([one, other]).square().mean()).sqrt()
    assert spread["family"] == pytest.approx(expected.item(), rel=1e-5)
    assert PromptConditioner(RANKS, States(), PromptSettings()).name_spread([CLARKII, CORNUTUS]) == {}


def test_texts_are_all_that_any_condition_asks_for() -> None:
    for conditioner in (
        make(),
        PromptConditioner(RANKS, States(), PromptSettings()),
        PromptConditioner(RANKS, States(), PromptSettings(num_parts=3)),
        TaxonAdapterConditioner(RANKS, States(), TaxonAdapterSettings(num_parts=2), ()),
    ):
        texts = conditioner.texts([CLARKII, CORNUTUS])
        assert len(texts) == len(set(texts))
        states = conditioner.states
        assert isinstance(states, States)
        holes = [lin.truncated(r).without(hole) for lin in (CLARKII, CORNUTUS) for r in RANKS for hole in RANKS]
        conditioner([CLARKII, CORNUTUS, Lineage(), *holes])
        assert set(states.asked) <= set(texts)


def test_encoders_start_from_a_seed_and_leave_the_global_state_alone() -> None:
    before = torch.random.get_rng_state()
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), same.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_the_papers_encoder_has_its_eleven_million_parameters_halved() -> None:
    """METHOD: 2 layers, 8 heads, width 768, feed-forward 2048: 2·(4·768² + 2·768·2048 + biases and norms)."""
    layer = 4 * 768 * 768 + 4 * 768 + 2 * 768 * 2048 + 2048 + 768 + 4 * 768

    class Wide(States):
        width = 768

    conditioner = TaxonomyConditioner(("order",), Wide(), TaxonomySettings())
    assert sum(parameter.numel() for parameter in conditioner.parameters()) == 2 * layer
    assert 10.9e6 < 2 * layer < 11.1e6


def test_heads_must_divide_the_width() -> None:
    with pytest.raises(SettingsError, match="does not divide the text width 16"):
        make(TaxonomySettings(num_heads=3))


def test_prompts_name_what_is_known() -> None:
    assert prompt(CLARKII.truncated("family")) == "order: Perciformes, family: Pomacentridae"
    assert prompt(CLARKII.without("family").truncated("genus")) == "order: Perciformes, genus: Amphiprion"
    assert prompt(Lineage()) == ""
    conditioner = PromptConditioner(RANKS, States(), PromptSettings())
    assert torch.equal(conditioner([CLARKII]), conditioner.states([prompt(CLARKII)]))


@pytest.mark.parametrize("gain", [3.0, 0.5])
def test_prompts_enlarge_or_lessen_names_as_the_encoders_do(gain: float) -> None:
    num_parts = 2
    named = ["order: Perciformes, family: Pomacentridae", "genus: Amphiprion, species: clarkii"]
    nameless = ["order: none, family: none", "genus: none, species: none"]
    conditioner = PromptConditioner(RANKS, States(), PromptSettings(num_parts=num_parts, name_gain=gain))
    whole, cut, null = conditioner([CLARKII, CLARKII.truncated("family"), Lineage()])
    own, none = conditioner.states(named), conditioner.states(nameless)
    torch.testing.assert_close(whole, torch.cat(list(none + gain * (own - none))))
    empty = conditioner.states([""])[0]
    torch.testing.assert_close(cut, torch.cat([none[0] + gain * (own[0] - none[0]), empty]))
    assert torch.equal(null, torch.cat([empty, empty]))  # the null has no name
    assert set(conditioner.texts([CLARKII])) >= {*named, *nameless, "", "order: none", "genus: none"}

    settings = TaxonAdapterSettings(num_parts=num_parts, name_gain=gain)
    adapter = TaxonAdapterConditioner(RANKS, States(), settings, [CLARKII]).eval()
    plain = TaxonAdapterConditioner(RANKS, States(), TaxonAdapterSettings(num_parts=num_parts), [CLARKII]).eval()
    enlarged = plain.projection((none + gain * (own - none)).mean((0, 1)))
    expected = plain.norm(enlarged.reshape(settings.num_tokens, -1))
    torch.testing.assert_close(adapter([CLARKII])[0, -settings.num_tokens :], expected)
    assert set(nameless) <= set(adapter.texts([CLARKII]))
    assert not set(nameless) & set(plain.texts([CLARKII]))
    # "none" may be longer than the names that it stands for
    lengths = {"order: Aa": 3, "order: none": 9}
    assert num_parts_needed([Lineage.of({"order": "Aa"})], ("order",), lambda text: lengths.get(text, 1), 5) == 1
    with pytest.raises(SettingsError, match="'order: none' alone has 9 tokens"):
        num_parts_needed([Lineage.of({"order": "Aa"})], ("order",), lambda t: lengths.get(t, 1), 5, nameless=True)


def test_settings_without_a_gain_are_written_as_they_always_were() -> None:
    assert PromptSettings(num_parts=2).model_dump_json() == '{"kind":"prompt","num_parts":2}'
    as_ever = '{"kind":"taxon_adapter","num_tokens":4,"embedding_width":null,"num_parts":1}'
    assert TaxonAdapterSettings().model_dump_json() == as_ever
    enlarged = PromptSettings(name_gain=6.0)
    assert PromptSettings.model_validate_json(enlarged.model_dump_json()) == enlarged


def test_a_long_prompt_is_cut_between_ranks_and_loses_nothing() -> None:
    assert num_parts_needed([CLARKII, CORNUTUS], RANKS, len, 200) == 1
    assert num_parts_needed([CLARKII, CORNUTUS], RANKS, len, 45) == 2
    with pytest.raises(SettingsError, match="'family: Pomacentridae' alone has 21 tokens"):
        num_parts_needed([CLARKII], RANKS, len, 20)
    conditioner = PromptConditioner(RANKS, States(), PromptSettings(num_parts=2))
    whole, cut, null = conditioner([CLARKII, CLARKII.truncated("family"), Lineage()])
    first, second, empty = conditioner.states(
        ["order: Perciformes, family: Pomacentridae", "genus: Amphiprion, species: clarkii", ""]
    )
    assert torch.equal(whole, torch.cat([first, second]))
    assert torch.equal(cut, torch.cat([first, empty]))
    assert torch.equal(null, torch.cat([empty, empty]))


def test_a_class_embedding_is_one_vector_per_taxon_and_rank() -> None:
    conditioner = ClassEmbeddingConditioner(RANKS, States(), ClassEmbeddingSettings(), [CLARKII, CORNUTUS]).eval()
    assert len(conditioner.taxa) == 7  # one order, two families, genera and species
    clarkii, cornutus, family, holed, null = conditioner(
        [CLARKII, CORNUTUS, CLARKII.truncated("family"), CLARKII.without("family"), Lineage()]
    )
    assert torch.equal(clarkii[0], cornutus[0])
    assert not torch.equal(clarkii[1], cornutus[1])
    assert torch.equal(family[:2], clarkii[:2])
    assert torch.equal(family[2:], null[2:])
    assert torch.equal(holed[1], null[1])
    assert torch.equal(holed[[0, 2, 3]], clarkii[[0, 2, 3]])
    with pytest.raises(DataError, match="nothing learned for order: Gadiformes"):
        conditioner([Lineage.of({"order": "Gadiformes"})])


def test_homonyms_have_vectors_of_their_own() -> None:
    """METHOD, fault 6."""
    one = Lineage.of({"genus": "Amphiprion", "species": "maculatus"})
    two = Lineage.of({"genus": "Zanclus", "species": "maculatus"})
    conditioner = ClassEmbeddingConditioner(("genus", "species"), States(), ClassEmbeddingSettings(), [one, two]).eval()
    first, second = conditioner([one, two])
    assert not torch.equal(first[1], second[1])


def test_the_taxon_adapter_adds_tokens_to_the_null() -> None:
    conditioner = TaxonAdapterConditioner(RANKS, States(), TaxonAdapterSettings(num_tokens=3), ()).eval()
    clarkii, cornutus, null = conditioner([CLARKII, CORNUTUS, Lineage()])
    assert clarkii.shape == (5 + 3, 16)
    assert torch.equal(clarkii[:5], conditioner.states([""])[0])
    assert not torch.allclose(clarkii[5:], cornutus[5:])
    assert not torch.allclose(clarkii[5:], null[5:])


def test_a_table_of_embeddings_is_read_by_lineage_and_never_trained() -> None:
    settings = TaxonAdapterSettings(embedding_width=6)
    conditioner = TaxonAdapterConditioner(RANKS, States(), settings, [CLARKII, CORNUTUS]).eval()
    asked: list[Lineage] = []

    def embed(lineages: Sequence[Lineage]) -> np.ndarray:
        asked.extend(lineages)
        return np.random.default_rng(0).normal(size=(len(lineages), 6)).astype(np.float32)

    conditioner.fill(embed)
    assert len(asked) == len(set(asked)) == 7
    conditioner.train_only(["taxon_tokens"])
    assert conditioner.table is not None
    assert not conditioner.table.requires_grad
    row = asked.index(CORNUTUS.truncated("genus"))
    extra = conditioner([CORNUTUS.truncated("genus")])[0, 5:]
    expected = conditioner.norm(conditioner.projection(conditioner.table[row]).reshape(4, 16))
    torch.testing.assert_close(extra, expected)
    assert conditioner.texts([CLARKII]) == [""]
    with pytest.raises(DataError, match="nothing learned for"):
        conditioner([Lineage.of({"order": "Gadiformes"})])


def test_name_gain_enlarges_what_tells_a_name_from_none() -> None:
    plain = make().eval()
    enlarged = make(SETTINGS.model_copy(update={"name_gain": 3.0})).eval()
    none, name = plain.states(["order: none", "order: Perciformes"])
    expected = plain.encoders["order"]((none + 3.0 * (name - none))[None])
    torch.testing.assert_close(enlarged([CLARKII.truncated("order")]), expected)
    torch.testing.assert_close(enlarged.encode([Lineage()]), plain.encode([Lineage()]))  # the null has no name
    lessened = make(SETTINGS.model_copy(update={"name_gain": 0.5})).eval()
    expected = plain.encoders["order"]((none + 0.5 * (name - none))[None])
    torch.testing.assert_close(lessened([CLARKII.truncated("order")]), expected)


# Vectors of their own beside names

OWN = TaxonomySettings(num_heads=2, feed_forward=32, vector_gain=20)


def with_vectors(taxa: Sequence[Lineage] = (CLARKII, CORNUTUS)) -> TaxonomyConditioner:
    """Every taxon's vector is its own number, in all columns."""
    conditioner = TaxonomyConditioner(RANKS, States(), OWN, taxa).eval()
    assert conditioner.own is not None
    with torch.no_grad():
        for number, rank in enumerate(RANKS):
            table = conditioner.own[rank]
            table += (1 + number) * torch.arange(1, len(table) + 1)[:, None]
    return conditioner


def test_a_taxon_that_no_photograph_showed_has_its_names_alone() -> None:
    """Vectors are zero until they are learned, and a taxon that the model never heard of has none."""
    untrained = TaxonomyConditioner(RANKS, States(), OWN, [CLARKII]).eval()
    torch.testing.assert_close(untrained([CLARKII, CORNUTUS]), make().eval()([CLARKII, CORNUTUS]), rtol=0, atol=0)
    stranger = Lineage.of({**dict(CLARKII.truncated("genus").names), "species": "percula"})
    added = with_vectors()([stranger]) - make().eval()([stranger])
    above = with_vectors()([CLARKII]) - make().eval()([CLARKII])
    torch.testing.assert_close(added[:, :3], above[:, :3])
    assert not added[:, 3].any()


def test_a_vector_is_added_in_its_ranks_token_at_the_gain() -> None:
    clarkii, cornutus, family, holed, null = with_vectors()(
        shown := [CLARKII, CORNUTUS, CLARKII.truncated("family"), CLARKII.without("family"), Lineage()]
    ) - make().eval()(shown)
    expected = torch.zeros(5, 5, 16)  # five tokens, and the last says no rank
    for row, numbers in enumerate(([1, 1, 1, 1], [1, 2, 2, 2], [1, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0])):
        for rank, number in enumerate(numbers):
            expected[row, rank] = 20 * (1 + rank) * number
    torch.testing.assert_close(torch.stack([clarkii, cornutus, family, holed, null]), expected, rtol=1e-5, atol=1e-4)


def test_homonyms_have_vectors_of_their_own_beside_one_name() -> None:
    """METHOD, fault 6."""
    one = Lineage.of({"genus": "Amphiprion", "species": "maculatus"})
    two = Lineage.of({"genus": "Zanclus", "species": "maculatus"})
    first, second = with_vectors([one, two])([one, two])
    assert not torch.equal(first[3], second[3])


def test_a_hole_that_several_taxa_would_fit_has_no_vector() -> None:
    """It would be another species' vector, maybe of one that no photograph showed."""
    above = {"order": "Perciformes", "family": "Pomacentridae", "species": "maculatus"}
    one, two = (Lineage.of({**above, "genus": genus}) for genus in ("Amphiprion", "Zanclus"))
    holed = two.without("genus")
    added = with_vectors([one, two])([holed]) - make().eval()([holed])
    assert added[0, :2].all()
    assert not added[0, 2:].any()
    alone = with_vectors([two])([holed]) - make().eval()([holed])
    assert alone[0, 3].all(), "the only taxon that it could be"


def test_vectors_need_a_token_for_each_rank() -> None:
    ranks = ("kingdom", "phylum", "class", "order", "family", "genus")
    with pytest.raises(SettingsError, match=r"a token for each of 6 ranks, and there are 5: raise base\.num_tokens"):
        TaxonomyConditioner(ranks, States(), OWN, [])


def test_a_stage_trains_the_vectors_of_the_ranks_whose_encoders_it_trains() -> None:
    conditioner = with_vectors()
    conditioner.train_only(["encoder.family"])
    assert conditioner.own is not None
    assert [rank for rank, table in conditioner.own.items() if table.requires_grad] == ["family"]
    conditioner([CLARKII, CORNUTUS.truncated("order")]).square().sum().backward()
    gradient = conditioner.own["family"].grad
    assert gradient is not None
    assert gradient[0].any()
    assert not gradient[1].any(), "no lineage of the batch reaches Zanclidae"


def test_a_table_that_no_lineage_reaches_still_belongs_to_the_graph() -> None:
    """Of several processes one may have such a batch; all must sum the same gradients."""
    conditioner = with_vectors()
    conditioner.train_only(["encoder.species"])
    conditioner([CLARKII.truncated("order")]).sum().backward()
    assert conditioner.own is not None
    assert conditioner.own["species"].grad is not None
    assert not conditioner.own["species"].grad.any()


def test_going_on_with_more_taxa_keeps_the_vectors_of_the_old_ones() -> None:
    old = with_vectors([CORNUTUS])
    new = TaxonomyConditioner(RANKS, States(), OWN, [CLARKII, CORNUTUS]).eval()
    state = new.carried({name: table.detach() for name, table in old.state_dict().items()}, [CORNUTUS])
    new.load_state_dict(state)
    torch.testing.assert_close(new([CORNUTUS]), old([CORNUTUS]))
    assert new.own is not None
    assert not new.own["species"][0].any()
    with pytest.raises(CheckpointError, match=r"a table of 1 taxa of width 16 is needed to go on, there is none"):
        new.carried({}, [CORNUTUS])
    with pytest.raises(CheckpointError, match=r"a table of 2 taxa.*one of shape \[1, 16\]"):
        new.carried(state | {"own.family": torch.zeros(1, 16)}, [CLARKII, CORNUTUS])


def test_without_vectors_nothing_is_added_to_weights_or_settings() -> None:
    assert not [name for name in make().state_dict() if name.startswith("own")]
    assert "vector_gain" not in SETTINGS.model_dump()
    assert OWN.model_dump()["vector_gain"] == 20
    assert TaxonomySettings.model_validate(OWN.model_dump()) == OWN


# Settings and what they build


@pytest.mark.parametrize(
    ("settings", "built"),
    [
        (SETTINGS, TaxonomyConditioner),
        (PromptSettings(), PromptConditioner),
        (ClassEmbeddingSettings(), ClassEmbeddingConditioner),
        (TaxonAdapterSettings(), TaxonAdapterConditioner),
    ],
)
def test_every_kind_of_settings_builds_its_conditioner(settings: BaseModel, built: type[Conditioner]) -> None:
    conditioner = build_conditioner(settings, RANKS, States(), [CLARKII])  # type: ignore[arg-type]
    assert type(conditioner) is built
    assert conditioner.settings == settings


NUMBERS = [
    (TaxonomySettings, "num_layers", 2, 1, 64),
    (TaxonomySettings, "num_heads", 8, 1, 256),
    (TaxonomySettings, "feed_forward", 2048, 1, 65536),
    (PromptSettings, "num_parts", 1, 1, 32),
    (TaxonAdapterSettings, "num_tokens", 4, 1, 256),
    (TaxonAdapterSettings, "embedding_width", None, 1, 16384),
    (TaxonAdapterSettings, "num_parts", 1, 1, 32),
]


@pytest.mark.parametrize(("settings", "name", "default", "least", "most"), NUMBERS)
def test_numbers_of_settings_have_stated_defaults_and_bounds(
    settings: type[BaseModel], name: str, default: int | None, least: int, most: int
) -> None:
    """METHOD: 2 layers, 8 heads, a feed-forward of 2048; beyond the bounds a file is no adapter of ours."""
    assert getattr(settings(), name) == default
    for taken in (least, most):
        assert getattr(settings(**{name: taken}), name) == taken
    for refused in (least - 1, most + 1):
        with pytest.raises(ValidationError):
            settings(**{name: refused})


def test_shares_and_gains_have_stated_defaults_and_bounds() -> None:
    assert (TaxonomySettings().dropout, TaxonomySettings().name_gain) == (0.1, 1.0)
    assert not TaxonomySettings().norm_first
    TaxonomySettings(dropout=0.0, name_gain=100.0)
    TaxonomySettings(dropout=0.99, name_gain=0.01)
    for refused in ({"dropout": 1.0}, {"dropout": -0.1}, {"name_gain": 0.0}, {"name_gain": 100.1}, {"gain": 1}):
        with pytest.raises(ValidationError):
            TaxonomySettings(**refused)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [TaxonomySettings, PromptSettings, TaxonAdapterSettings])
def test_names_may_be_enlarged_or_lessened_and_are_neither_unless_asked(settings: type[BaseModel]) -> None:
    assert settings().name_gain == 1.0  # type: ignore[attr-defined]
    for taken in (0.01, 100):
        assert settings(name_gain=taken).name_gain == taken  # type: ignore[attr-defined]
    for refused in (0, -1, 100.1):
        with pytest.raises(ValidationError):
            settings(name_gain=refused)


@pytest.mark.parametrize("duty", ["encode", "texts", "parameter_groups"])
def test_a_conditioner_without_one_of_its_duties_cannot_be_made(duty: str) -> None:
    duties = {name: lambda *_: None for name in ("encode", "texts", "parameter_groups") if name != duty}
    with pytest.raises(TypeError, match=duty):
        type("Idle", (Conditioner,), duties)(RANKS, States(), PromptSettings())


def test_only_named_groups_learn() -> None:
    classes = ClassEmbeddingConditioner(RANKS, States(), ClassEmbeddingSettings(), [CLARKII])
    for conditioner, group in ((classes, "classes"), (make(), "encoder.family")):
        for groups in ([group], [], [group]):
            conditioner.train_only(groups)
            learning = {name for name, p in conditioner.named_parameters() if p.requires_grad}
            assert learning == (set(conditioner.parameter_groups()[group]) if groups else set())


def test_only_a_trained_encoder_has_dropout() -> None:
    conditioner = make(SETTINGS.model_copy(update={"dropout": 0.5})).train()
    conditioner.train_only(["encoder.family"])
    assert {rank for rank in RANKS if conditioner.encoders[rank].training} == {"family"}
    family = CLARKII.truncated("family")
    assert not torch.equal(conditioner([family]), conditioner([family]))
    conditioner.train_only(["encoder.species"])
    assert torch.equal(conditioner([family]), conditioner([family]))


def test_a_prompt_as_long_as_the_limit_is_whole() -> None:
    longest = len(prompt(CLARKII))
    assert num_parts_needed([CLARKII], RANKS, len, longest) == 1
    assert num_parts_needed([CLARKII], RANKS, len, longest - 1) == 2


def test_a_table_of_many_taxa_is_written_to_its_last_row() -> None:
    taxa = [Lineage.of({"genus": f"G{number:03d}"}) for number in range(600)]
    settings = TaxonAdapterSettings(embedding_width=1)
    conditioner = TaxonAdapterConditioner(("genus",), States(), settings, taxa)
    conditioner.fill(lambda asked: np.array([[float(lineage.names[0][1][1:])] for lineage in asked], np.float32))
    assert conditioner.table is not None
    assert conditioner.table[:, 0].tolist() == list(range(600))


def test_names_are_compared_up_to_64_a_rank() -> None:
    conditioner = TaxonomyConditioner(("genus",), States(), SETTINGS).eval()
    states = conditioner.states
    assert isinstance(states, States)
    for number in (64, 70):
        states.asked.clear()
        spread = conditioner.name_spread([Lineage.of({"genus": f"G{i}"}) for i in range(number)])
        assert len(states.asked) == 64
        assert spread["genus"] > 0
    assert conditioner.name_spread([Lineage.of({"genus": name}) for name in ("G1", "G2")])


@pytest.mark.parametrize("value", [False, True])
def test_settings_that_are_gone_are_read_from_cards_of_before_and_written_as_off(value: bool) -> None:
    """How an encoder began is past; the bytes of a card, and so a model's hash, stay what they were."""
    old = TaxonomySettings(norm_first=True).model_dump() | {"zero_init": value, "warm_start": value}
    read = TaxonomySettings.model_validate(old)
    assert read == TaxonomySettings(norm_first=True)
    assert list(read.model_dump())[-2:] == ["zero_init", "warm_start"]
    assert read.model_dump() == old | {"zero_init": False, "warm_start": False}
