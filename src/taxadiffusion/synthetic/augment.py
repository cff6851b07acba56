"""A synthetic set from a model and the data set it is for: planned, drawn, judged, written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from taxadiffusion.adapter import Adapter
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import DataError
from taxadiffusion.evaluate.judges import Tell
from taxadiffusion.evaluate.planted import Planter
from taxadiffusion.features import Extractor
from taxadiffusion.files import sha256_of
from taxadiffusion.pictures.asked import species_of
from taxadiffusion.pictures.generate import ALONE
from taxadiffusion.synthetic.checks import Accepting, open_checks, sight
from taxadiffusion.synthetic.making import Drawn, Maker, Making
from taxadiffusion.synthetic.plan import BALANCE, TOP_UP, Plan, counted_species, plan_of_counts, read_plan, unknown_to
from taxadiffusion.synthetic.written import Layout, require_layout, write_set

PLAN = "plan.csv"


@dataclass(frozen=True, slots=True)
class Asked:
    """A set: how many of what, how drawn, accepted by what, and how written."""

    plan: Plan
    making: Making
    accepting: Accepting
    extractor: str
    """What the user calls the network whose features judge."""
    layout: Layout
    licence: str


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told: in words of what is being done, and of numbers of pictures."""

    tell: Tell = lambda _: None
    told: Drawn = lambda *_: None


def planned(adapter: Adapter, dataset: PreparedDataset, rule: str, to: int | None) -> Plan:
    """By `balance`, `top-up`, or the table at the path `rule`, over the model's ranks.

    Raises `SettingsError` or `DataError` where it cannot be, also for species that the model does not know.
    """
    ranks = tuple(rank for rank in adapter.card.ranks if rank in dataset.ranks)
    if ranks != adapter.card.ranks:
        raise DataError(
            f"{dataset.path}: its ranks are {', '.join(dataset.ranks)}, the model's {', '.join(adapter.card.ranks)}; "
            "give the data set that the model was trained on"
        )
    counts = counted_species(dataset, ranks)
    plan = (
        plan_of_counts(counts, ranks, rule, to) if rule in (BALANCE, TOP_UP) else read_plan(Path(rule), counts, ranks)
    )
    strange = unknown_to(species_of(adapter), plan)
    if strange:
        raise DataError(
            f"the model does not know {len(strange)} of the planned species, the first of them {strange[0]}; give a "
            "model of this data set, or a plan without them (--plan FILE)"
        )
    return plan


def augment(
    adapter: Adapter,
    dataset: PreparedDataset,
    asked: Asked,
    out: Path,
    open_extractor: Callable[[], Extractor],
    shard: Shard = ALONE,
    watch: Watch = Watch(),
) -> dict[str, Any] | None:
    """Make the set and return its manifest (`written.write_set`); None of a process that is not the first.

    The same call again goes on where it was stopped. open_extractor: the network whose features judge; it is opened
    by the first process, if anything is to be judged.
    """
    require_layout(asked.layout)
    accepting, backbone = asked.accepting, adapter.denoiser.backbone
    expert = sha256_of(accepting.expert).hex() if accepting.expert else None
    named = "at even odds" if accepting.rank else None  # older sets say nothing: frequent species were named sooner
    extractor = asked.extractor if accepting else None
    accepted_by = asdict(accepting) | {"expert": expert, "extractor": extractor, "named": named}
    maker = Maker(adapter, asked.plan, asked.making, out, accepted_by, shard)
    if shard.number:
        maker.follow()
        return None
    out.mkdir(parents=True, exist_ok=True)
    asked.plan.write(out / PLAN)
    by = sight(open_extractor(), out / "features", adapter.card.image_size_px) if accepting else None

    def planter() -> Planter:
        return Planter(Backbone.load(backbone.name, device=str(backbone.device)))

    checks = open_checks(dataset, adapter.card.ranks, accepting, by, planter, asked.making.seed, watch.tell)
    watch.tell("drawing and judging")
    candidates = maker.make(checks, watch.told)
    watch.tell("writing the set")
    return write_set(
        out,
        asked.plan,
        candidates,
        dataset,
        layout=asked.layout,
        licence=asked.licence,
        accepted_by=checks.described,
    )
