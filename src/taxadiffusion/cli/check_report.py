"""The report of `check` as tables in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from taxadiffusion.dataset.catalogue import CatalogueReport
from taxadiffusion.dataset.check import CheckReport
from taxadiffusion.dataset.findings import TaxonPair
from taxadiffusion.metrics.frequency import TAIL
from taxadiffusion.names import RANKS

NUM_SHOWN = 25
WORDS = {
    "genus_filled": "rows whose genus is taken from their species",
    "species_as_binomial": "rows with a binomial where an epithet is usual",
    "species_as_epithet": "rows with an epithet where a binomial is usual",
    "species_not_a_name": "rows whose species is no scientific name",
    "species_not_an_epithet": "rows read at the genus, for the one word in their species cell is no epithet",
    "placeholder_in_name": "rows whose name ends in a word for “no name” (nan, None …), read as what stands before it",
    "capitals": "rows with a name in unusual capitals, read in the usual ones",
    "quotation_marks": "rows with quotation marks around a name, read without",
    "number_before_name": "pictures in a folder with a number before its name, read without",
    "names_accepted": "names that the catalogue accepts",
    "names_that_are_synonyms": "names that are synonyms in the catalogue (check --names lists them)",
    "names_doubtful": "names that the catalogue leaves in doubt (check --names lists them)",
    "names_unknown": "names that the catalogue does not know (check --names lists them)",
    **{f"placeholder_{rank}": f"cells that say “no name” at {rank}" for rank in RANKS},
}
"""What readers count, for people."""
_ASIDE = {
    "capitals": "capitals",
    "quotation_marks": "quotation marks",
    "placeholder_in_name": "no name in it",
    "species_not_an_epithet": "no epithet",
    "number_before_name": "a number before it",
}


NAMES_TO_LOOK_AT = (*_ASIDE, "names_that_are_synonyms", "names_doubtful", "names_unknown")
"""What `prepare` tells of names, for a person to look at with `check`."""


def show(console: Console, report: CheckReport) -> None:
    """Print everything `check` found, contradictions last; long lists are cut at `NUM_SHOWN` (the JSON holds all)."""
    console.print(
        f"[bold]{escape(report.source)}[/] ({report.format}): {report.rows} rows, {report.taxa} taxa", markup=True
    )
    facts = {
        "rows without a species": report.rows_without_species,
        "rows rejected": report.rows_rejected,
        "images whose licence forbids commercial use or derivatives": report.restricted_license_images,
        **{WORDS.get(key, key.replace("_", " ")): number for key, number in report.reader_counts.items()},
    }
    for words, number in facts.items():
        if number:
            console.print(f"  {words}: {number}")
    _ranks(console, report)
    _counts(console, "Rejected rows, by reason", report.rejected_reasons)
    for rejected in report.rejected[:5]:
        console.print(f"  {rejected}", style="dim", markup=False)
    _counts(console, "Pictures that cannot be used, by reason", report.picture_faults)
    for faulty in report.faulty_pictures[:5]:
        console.print(f"  {faulty}", style="dim", markup=False)
    _counts(console, "Repairs applied (rows)", report.fixes_applied)
    if report.fixes_unused:
        console.print(f"[yellow]Repairs that match nothing:[/] {'; '.join(report.fixes_unused)}")
    _counts(console, "Qualified identifications (images)", report.qualifiers)
    _counts(console, "Licences (images)", report.licenses)
    _counts(console, "Published splits (images)", report.splits)
    right = [(_ASIDE.get(kind, kind.replace("_", " ")), names, rows) for kind, names, rows in report.names_put_right]
    title = "Names read otherwise than written; correct the table where that is wrong"
    _rows(console, title, ("why", "name", "rows"), right)
    _rows(console, "Names that do not look like names", ("rank", "name", "images"), report.odd_names)
    shared = report.epithets_in_several_genera
    if shared:
        listed = ", ".join(f"{epithet} ({number})" for epithet, number in list(shared.items())[:5])
        console.print(
            f"\nEpithets in several genera: {len(shared)} (most: {listed}); species are told apart by their lineage"
        )
    homonyms = [(name, ", ".join(kingdoms)) for name, kingdoms in report.homonyms_across_kingdoms.items()]
    _rows(console, "Homonyms across kingdoms (allowed)", ("name", "kingdoms"), homonyms)
    _pairs(console, "Likely misspellings", report.misspellings, "below")
    _pairs(console, "Probably two spellings of one taxon", report.mixed_spellings, "because")
    _pairs(console, "Synonyms both in use", report.synonyms, "table row")
    if report.catalogue is not None:
        _catalogue(console, report.catalogue)
    _conflicts(console, report)


def _catalogue(console: Console, report: CatalogueReport) -> None:
    numbers = (
        f"{report.accepted} of {report.names} names accepted, {len(report.synonyms)} synonyms, "
        f"{len(report.doubtful)} doubtful, {len(report.unknown)} unknown"
    )
    console.print(f"\n[bold]Read against {escape(report.archive)}:[/] {numbers}", soft_wrap=True)
    synonyms = [(j.rank, j.name, j.accepted, j.images) for j in report.synonyms]
    _rows(console, "Synonyms (--rules FILE writes rules for --fix)", ("rank", "name", "accepted", "images"), synonyms)
    doubtful = [(j.rank, j.name, j.why, j.images) for j in report.doubtful]
    _rows(console, "Doubtful names, for a taxonomist to decide", ("rank", "name", "why", "images"), doubtful)
    unknown = [(j.rank, j.name, j.why, j.images) for j in report.unknown]
    _rows(console, "Names that the catalogue does not know", ("rank", "name", "", "images"), unknown)


def _ranks(console: Console, report: CheckReport) -> None:
    console.print("\n[bold]Taxa and images per rank[/]; the last columns count taxa by their number of images")
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("rank", "taxa", "images", "no name", "1 child", *(bucket.name for bucket in TAIL)):
        table.add_column(column, justify="left" if column == "rank" else "right", no_wrap=True)
    for rank in report.ranks:
        tail = report.long_tail.get(rank, {})
        numbers = (
            report.taxa_per_rank[rank],
            report.images_per_rank[rank],
            report.missing_ranks.get(rank, 0),
            report.monotypic[rank],
        )
        table.add_row(rank, *(str(number) for number in (*numbers, *(tail.get(bucket.name, 0) for bucket in TAIL))))
    console.print(table)


def _conflicts(console: Console, report: CheckReport) -> None:
    rows = [
        (
            c.rank,
            c.name,
            c.parent_rank,
            "; ".join(f"{name} ({images} images, first {row})" for name, images, row in c.parents),
        )
        for c in report.conflicts
    ]
    _rows(
        console,
        "Contradictions: one name below two parents",
        ("rank", "name", "parents are", "parents"),
        rows,
        limit=None,
    )


def _pairs(console: Console, title: str, pairs: Iterable[TaxonPair], where: str) -> None:
    rows = [(p.rank, f"{p.first} ({p.first_images})", f"{p.second} ({p.second_images})", p.where) for p in pairs]
    _rows(console, title, ("rank", "name (images)", "beside (images)", where), rows)


def _counts(console: Console, title: str, counts: Mapping[str, int]) -> None:
    _rows(console, title, ("", "number"), list(counts.items()))


def _rows(
    console: Console,
    title: str,
    columns: tuple[str, ...],
    rows: Sequence[tuple[object, ...]],
    limit: int | None = NUM_SHOWN,
) -> None:
    if not rows:
        return
    console.print(f"\n[bold]{title}:[/] {len(rows)}")
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:limit]:
        table.add_row(*(escape(str(cell)) for cell in row))
    console.print(table)
    if limit is not None and len(rows) > limit:
        console.print(f"  … {len(rows) - limit} more in the --json report", style="dim")
