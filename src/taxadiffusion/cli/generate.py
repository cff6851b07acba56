"""`taxadiffusion generate`: pictures of any taxon at any rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from taxadiffusion.cli import context_options, options
from taxadiffusion.cli.generate_accept import Drawing, draw_accepted, opened_filter
from taxadiffusion.cli.generate_trusted import trusted_lineages
from taxadiffusion.cli.paths import text_argument

if TYPE_CHECKING:
    from taxadiffusion.adapter import Adapter
    from taxadiffusion.guidance import Guidance
    from taxadiffusion.names import Lineage
    from taxadiffusion.pictures.generate import Generated
    from taxadiffusion.pictures.weaker import WeakerModel
    from taxadiffusion.sampler import Request


_MOST_SHOWN = 1000  # pictures of a contact sheet

Model = Annotated[
    str,
    typer.Argument(
        parser=text_argument,
        help="An adapter's or run's directory, a hub id, or a shipped one: `reef-fish`, `butterflies`.",
    ),
]
Taxa = Annotated[
    list[str] | None, typer.Argument(help="Binomials, genera, families …; a homonym as “Ancestor > Name”.")
]
GuidanceRank = Annotated[
    str,
    typer.Option(help="Guide away from the ancestor at this rank; `coarsest`; `unconditional`; or `sister`."),
]
Confusions = Annotated[
    Path | None, typer.Option(help="An evaluation (JSON) whose probe says which sister a taxon is taken for.")
]
GuideWith = Annotated[
    Path | None, typer.Option(metavar="MODEL", help="Guide away from this weaker model: RUN/step-N, or an adapter.")
]
RankScale = Annotated[
    list[str] | None, typer.Option(help="`genus=2`: a guidance scale for what this rank adds; repeatable.")
]
Fraction = Annotated[
    float | None, typer.Option(min=0, max=1, help="How far towards it: 0 = the taxon itself … 1 = the other.")
]
Seed = Annotated[
    int, typer.Option(min=0, max=options.MAX_SEED, help="Of the first picture; the next has the next seed.")
]
Out = Annotated[Path, typer.Option(help="Folder for the pictures; the same command again goes on.")]
Sign = Annotated[
    Path | None,
    typer.Option(
        metavar="CERT", help="Sign each picture (C2PA) with this PEM file: certificate, those that vouch for it, key."
    ),
]
Accept = Annotated[
    Path | None, typer.Option(help="A filter of `review --learn`: draw until -n pictures of each taxon pass it.")
]
Trusted = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="Draw each taxon at the finest rank at which so many are right (see `trust`)."),
]
LineageStrip = Annotated[bool, typer.Option("--lineage-strip", help="The same seeds at every rank, coarse to fine.")]


def generate(
    model: Model,
    taxa: Taxa = None,
    all_species: Annotated[bool, typer.Option("--all-species", help="Every species that the model knows.")] = False,
    rank: Annotated[str | None, typer.Option(help="Draw each taxon's ancestor at this rank.")] = None,
    num_images: Annotated[int, typer.Option("-n", "--num-images", min=1, help="Pictures of each taxon.")] = 4,
    guidance_scale: options.GuidanceScale = options.GUIDANCE_SCALE,
    guidance_rank: GuidanceRank = "unconditional",
    guidance_interval: options.GuidanceInterval = options.WHOLE_SCHEDULE,
    rank_scale: RankScale = None,
    confusions: Confusions = None,
    guide_with: GuideWith = None,
    towards: Annotated[str | None, typer.Option(help="Mix each taxon's condition with this taxon's.")] = None,
    fraction: Fraction = None,
    context: context_options.Caption = None,
    context_scale: context_options.Scale = None,
    sampler: options.SamplerChoice = None,
    num_steps: options.Steps = options.NUM_STEPS,
    seed: Seed = 0,
    out: Out = Path("generated"),
    lineage_strip: LineageStrip = False,
    sign: Sign = None,
    base: options.Base = None,
    batch_size: options.BatchSize = options.BATCH_SIZE,
    engine: options.Engine = "torch",
    device: options.Device = "auto",
    trusted: Trusted = None,
    accept: Accept = None,
    tries: Annotated[int, typer.Option(min=1, help="With --accept: at most so many drawn for each wanted.")] = 10,
    extractor: options.Extractor = None,
    weights: options.Weights = None,
) -> None:
    """Make pictures of taxa. Each file says in its metadata how it was made and that it is synthetic.

    Under accelerate launch the processes share the pictures.
    """
    _check_choice(taxa, all_species, towards, fraction, lineage_strip)
    beside = context_options.one_context(context, context_scale)
    from taxadiffusion.adapter import open_model
    from taxadiffusion.base.device import chosen_device, described
    from taxadiffusion.base.onnx import only_on_cpu
    from taxadiffusion.pictures.generate import Sampling
    from taxadiffusion.pictures.sign import open_signer
    from taxadiffusion.sampler import Request

    accepting = opened_filter(accept, extractor, weights, tries, device)
    signer = None if sign is None else open_signer(sign)
    where = chosen_device(device, cpu_only=only_on_cpu(engine))
    adapter = open_model(model, base=base, device=where)
    asked, notes = _lineages(adapter, taxa, rank, lineage_strip)
    lineages = trusted_lineages(adapter, asked, notes, trusted)
    other = _mixed(adapter, lineages, notes, towards, fraction or 0.0, rank)
    guidance = _guidance(adapter, guidance_scale, guidance_rank, guidance_interval, rank_scale or [], guide_with)
    seeds = range(seed, seed + num_images)
    plain = [Request(taxon, n, guidance, other, fraction or 0.0, context=beside) for taxon in lineages for n in seeds]
    sampling = Sampling(num_steps, batch_size, sampler, engine, _weaker(adapter, guide_with, base))
    drawing = Drawing(adapter, _sistered(adapter, plain, notes, confusions), sampling, notes, signer)
    if accepting is None:
        return _draw(drawing, num_images, out, described(where))
    return draw_accepted(drawing, seeds, out, accepting)


def _draw(drawing: Drawing, num_images: int, out: Path, where: str) -> None:
    """All of them, under a progress bar; of several processes the first alone tells of them."""
    from taxadiffusion.cli.shown import watched
    from taxadiffusion.dataset.shards import Shard
    from taxadiffusion.pictures.generate import generate as make

    requests = drawing.requests
    shard = Shard.of_environment()
    if not shard.number:
        typer.echo(f"{len(requests)} pictures on {where}", err=True)
    pictures = make(drawing.adapter, requests, out, drawing.sampling, shard, drawing.notes, drawing.signer)
    made = watched(pictures, "pictures", len(requests))
    if not shard.number:
        _tell(made, requests, num_images, out)


def _check_choice(
    taxa: list[str] | None, all_species: bool, towards: str | None, fraction: float | None, lineage_strip: bool
) -> None:
    from taxadiffusion.errors import SettingsError

    if bool(taxa) == all_species:
        raise SettingsError("name at least one taxon, or give --all-species (not both)")
    if (towards is None) != (fraction is None):
        raise SettingsError("--towards TAXON and --fraction F go together: give both, or neither")
    if towards is not None and lineage_strip:
        raise SettingsError("--towards mixes conditions of one depth, so it does not go with --lineage-strip")


def _lineages(
    adapter: Adapter, taxa: list[str] | None, rank: str | None, lineage_strip: bool
) -> tuple[list[Lineage], dict[Lineage, str]]:
    """Of the names that were typed, and a note where one needs it; of no names: every species. Each once."""
    from taxadiffusion.pictures.asked import cut_at, requested_lineage, species_of

    lineages: list[Lineage] = []
    notes: dict[Lineage, str] = {}
    if not taxa:
        lineages = [one if rank is None else cut_at(adapter, one, rank) for one in species_of(adapter)]
    for name in taxa or ():
        lineage, note = requested_lineage(adapter, name, rank)
        if note:
            typer.echo(f"note: {note}", err=True)
            notes[lineage] = "; ".join([*([notes[lineage]] if lineage in notes else []), note])
        lineages.append(lineage)
    if lineage_strip:
        lineages = [lineage.truncated(above) for lineage in lineages for above in lineage.ranks]
    return list(dict.fromkeys(lineages)), notes


def _mixed(
    adapter: Adapter,
    lineages: list[Lineage],
    notes: dict[Lineage, str],
    towards: str | None,
    fraction: float,
    rank: str | None,
) -> Lineage | None:
    """The taxon to mix with; every picture's recipe then notes that it shows a mix."""
    from taxadiffusion.pictures.asked import requested_lineage

    if towards is None:
        return None
    other, note = requested_lineage(adapter, towards, rank)
    if note:
        typer.echo(f"note: {note}", err=True)
    for lineage in lineages:
        told = [notes[lineage]] if lineage in notes else []
        notes[lineage] = "; ".join([*told, f"a mix: {fraction:g} of the way to {other.label}"])
    return other


def _sistered(
    adapter: Adapter, requests: list[Request], notes: dict[Lineage, str], confusions: Path | None
) -> list[Request]:
    """The requests with the sisters that they are guided from; what has none is noted."""
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.pictures.sisters import read_confusions, with_sisters

    if confusions is not None and requests[0].guidance.base != "sister":
        raise SettingsError("--confusions chooses among sisters: give it with --guidance-rank sister")
    requests, without = with_sisters(adapter, requests, None if confusions is None else read_confusions(confusions))
    for lineage, note in without.items():
        typer.echo(f"note: {lineage.label}: {note}", err=True)
        notes[lineage] = "; ".join([*([notes[lineage]] if lineage in notes else []), note])
    return requests


def _weaker(adapter: Adapter, path: Path | None, base: str | None) -> WeakerModel | None:
    from taxadiffusion.pictures.weaker import open_weaker

    return None if path is None else open_weaker(path, adapter, base=base)


def _guidance(
    adapter: Adapter,
    scale: float,
    guidance_rank: str,
    interval: tuple[float, float],
    rank_scales: list[str],
    guide_with: Path | None,
) -> Guidance:
    from taxadiffusion.errors import SettingsError
    from taxadiffusion.guidance import Guidance

    if guide_with is not None or guidance_rank == "sister":
        if rank_scales or (guide_with is not None and guidance_rank != "unconditional"):
            raise SettingsError("--guide-with and --guidance-rank sister have one scale each, and no other base")
        return Guidance(scale, interval=interval, base="sister" if guide_with is None else "weaker model")
    ranks = adapter.card.ranks
    known = {"unconditional": None, "coarsest": ranks[0], **{rank: rank for rank in ranks}}
    if guidance_rank not in known:
        raise SettingsError(f"--guidance-rank {guidance_rank!r} is none of {', '.join(known)}, sister")
    base = known[guidance_rank]
    finer = ranks if base is None else ranks[ranks.index(base) + 1 :]
    scales: dict[str, float] = {}
    for text in rank_scales:
        rank, _, number = text.partition("=")
        if rank not in finer or rank in scales:
            why = "is given twice" if rank in scales else f"is none of the ranks below the base: {', '.join(finer)}"
            raise SettingsError(f"--rank-scale {text!r}: {rank!r} {why}")
        try:
            scales[rank] = float(number)
        except ValueError:
            raise SettingsError(f"--rank-scale {text!r}: write it as RANK=NUMBER, e.g. {finer[-1]}=2") from None
    return Guidance(scale, base, interval, tuple((rank, scales[rank]) for rank in ranks if rank in scales))


def _tell(made: list[Generated], requests: Sequence[Request], num_images: int, out: Path) -> None:
    num_new = sum(picture.made for picture in made)
    typer.echo(f"{num_new} pictures made, {len(made) - num_new} were there: {out}/metadata.csv")
    shown = "" if len(requests) <= _MOST_SHOWN else " of the first taxa"
    typer.echo(f"contact sheet{shown}: {_contact_sheet(made, requests, num_images, out)}")


def _caption(request: Request) -> str:
    """The taxon's name, with its rank where that is not plain from a name of two words or more; both of a mix."""
    lineage = request.lineage
    if request.towards is not None:
        return f"{lineage.label} → {request.towards.label} {request.fraction:g}"
    return lineage.label if lineage.get("species") else f"{lineage.label} ({lineage.rank})"


def _contact_sheet(made: list[Generated], requests: Sequence[Request], columns: int, out: Path) -> Path:
    """One row a taxon, beside the folder and not in it: the folder holds what its table lists. Of the first taxa only,
    where they are many."""
    from taxadiffusion.images import image_grid
    from taxadiffusion.pictures.png import read_picture

    paths = {picture.request: picture.path for picture in made}
    requests = requests[: columns * max(1, _MOST_SHOWN // columns)]
    captions = [_caption(request) for request in requests]
    sheet = image_grid([read_picture(paths[request]) for request in requests], columns, captions, cell_px=128)
    path = out.with_name(f"{out.name}-sheet.png")
    sheet.save(path)
    return path
