"""Laws of what the package ships, whichever base and models these are."""

from __future__ import annotations

import pytest
import torch
from diffusers import StableDiffusionPipeline

from taxadiffusion.adapter import CARD, open_model, read_adapter
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.training_record import read_record
from taxadiffusion.base.weights import SHIPPED_BASE, shipped
from taxadiffusion.names import Lineage

FOLDERS = sorted(path for path in shipped(SHIPPED_BASE).parent.iterdir() if path.is_dir())
BASES = [path for path in FOLDERS if (path / "unet").is_dir()]
MODELS = [path for path in FOLDERS if (path / CARD).is_file()]


def test_one_base_ships_under_its_name_and_models_that_belong_to_it() -> None:
    assert [path.name for path in BASES] == [SHIPPED_BASE]
    assert MODELS
    assert sorted([*BASES, *MODELS]) == FOLDERS


def test_stock_diffusers_loads_the_base() -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(shipped(SHIPPED_BASE), local_files_only=True)
    backbone = Backbone.load(SHIPPED_BASE)
    own, theirs = dict(backbone.unet.named_parameters()), dict(pipeline.unet.named_parameters())
    assert set(own) == set(theirs)
    assert all(torch.equal(own[name].float(), theirs[name].float()) for name in own)


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_a_shipped_model_loads_by_its_name_and_conditions_on_all_it_knows(path: object) -> None:
    adapter = open_model(path.name)  # type: ignore[attr-defined]
    assert adapter.card.base == SHIPPED_BASE
    assert adapter.denoiser.backbone.content_hash == adapter.card.base_hash
    known = (adapter.taxonomy.lineage(taxon).only(adapter.card.ranks) for taxon in range(len(adapter.taxonomy)))
    lineages = list(dict.fromkeys([Lineage(), *known]))
    with torch.no_grad():
        conditions = adapter.denoiser.conditioner(lineages)
    assert bool(torch.isfinite(conditions).all())
    assert len(torch.unique(conditions.flatten(1), dim=0)) == len(lineages)  # no two taxa are one to it


def test_the_base_says_how_many_photographs_of_each_species_of_the_models_it_saw() -> None:
    """So that nobody takes a species for unseen: whichever base ships, it has a record, and the record adds up."""
    record = read_record(shipped(SHIPPED_BASE))
    assert record is not None
    assert record.sources
    for source in record.sources:
        assert sum(source.taxa.values()) <= source.num_images
    taxonomies = [read_adapter(path)[1] for path in MODELS]
    species = [taxonomy.lineage(taxon) for taxonomy in taxonomies for taxon in taxonomy.at_rank("species")]
    assert sum(record.num_seen(lineage) > 0 for lineage in species) > len(species) / 2
