"""The pages as HTML: values in, text out; what is foreign is escaped by the templates."""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from taxadiffusion.guidance import DEFAULT_SCALE
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.web.ask import NUM_STEPS, Ask, ask_of, command_line, python_lines
from taxadiffusion.web.evaluated import Evaluated, Share
from taxadiffusion.web.find import Hit
from taxadiffusion.web.jobs import JobView
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.looking import Twin
from taxadiffusion.web.memory import Memory
from taxadiffusion.web.photographs import Photograph, Photographs
from taxadiffusion.web.served import ServedModel
from taxadiffusion.web.store import Kept, Store
from taxadiffusion.web.twins import Twins

NO_TRUST: Mapping[Lineage, Rank | None] = MappingProxyType({})
_NUM_CHILDREN = 500
_NUM_FINEST = 120
"""Up to so many taxa of the finest rank the first page lists them all."""
_NUM_OTHERS = 12


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page as it is sent. etag: of its content."""

    body: bytes
    etag: str
    version: object
    """Of what it was made from."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A taxon in a list. num_finest: taxa of the finest rank that it holds; num_photographs: None where not known."""

    taxon: int
    label: str
    rank: Rank
    common_name: str
    num_finest: int
    num_photographs: int | None


@dataclass(frozen=True, slots=True)
class RankRow:
    """A rank of a taxon's page: the ancestor there, what was drawn of it, photographs beside it."""

    taxon: int
    rank: Rank
    label: str
    picture: Kept | None
    twin: Twin | None
    """Of the picture, where it is known."""
    like: Photograph | None
    """The twin's photograph."""
    photographs: tuple[Photograph, ...]
    num_photographs: int | None
    share: Share | None
    """Of this taxon's pictures that are named right."""
    of_rank: Share | None
    real: Share | None
    """Of photographs that nobody trained on."""


class Pages:
    """Renders what the site shows; a taxon's page is kept until a picture comes or goes."""

    def __init__(
        self,
        model: ServedModel,
        store: Store,
        limits: Limits,
        photographs: Photographs | None,
        evaluated: Evaluated | None,
        twins: Twins | None = None,
        trusted: Mapping[Lineage, Rank | None] = NO_TRUST,
    ) -> None:
        """trusted: the rank to which a taxon's pictures are right, of those that were judged."""
        self._model, self._store, self._limits = model, store, limits
        self._photographs, self._evaluated, self._twins = photographs, evaluated, twins
        self._trusted = trusted
        environment = Environment(loader=PackageLoader(__package__, ""), autoescape=True, undefined=StrictUndefined)
        environment.globals |= {"model": model, "limits": limits, "scale": DEFAULT_SCALE, "steps": NUM_STEPS}
        environment.filters["percent"] = lambda share: f"{share:.0%}"
        self._environment = environment
        self._kept: Memory[Rendered] = Memory(limits.page_bytes)

    def home(self) -> Rendered:
        """Search, the tree, its coarsest taxa and the newest pictures."""

        def render() -> str:
            finest = self._model.finest if len(self._model.finest) <= _NUM_FINEST else []
            listed = {"roots": self._listed(self._model.children.get(None, [])), "finest": self._listed(finest)}
            return self._page("home", **listed, latest=self._store.latest(12))

        return self._once("home", self._store.version, render)

    def results(self, query: str, hits: tuple[Hit, ...]) -> Rendered:
        """What a search found, for who has no JavaScript."""

        def render() -> str:
            where = {hit.taxon: self._where(hit.taxon) for hit in hits}
            return self._page("results", query=query, hits=hits, where=where)

        return self._once(("found", query), None, render)

    def taxon(self, taxon: int) -> Rendered:
        """Raises `DataError` for a number that is no taxon."""
        lineage = self._model.lineage(taxon)
        version = self._store.changes(lineage), self._twins.version if self._twins else 0
        return self._once(taxon, version, lambda: self._taxon(taxon, lineage))

    def job(self, job: JobView, ask: Ask, *, own: bool) -> str:
        """A job with its pictures so far. own: the visitor may cancel it."""
        kept = [self._store.get(picture) for picture in job.pictures]
        return self._page(
            "job",
            job=job,
            ask=ask,
            own=own,
            taxon=self._model.ids.get(ask.lineage),
            pictures=[one for one in kept if one is not None],
            num_gone=sum(one is None for one in kept),
            command=command_line(ask, self._model),
            python=python_lines(ask, self._model),
            columns=ask.number,
        )

    def picture(self, kept: Kept) -> Rendered:
        """One picture with all that is known of it."""
        return self._once(kept.id, self._twins.version if self._twins else 0, lambda: self._picture(kept))

    def fault(self, status: int, message: str) -> str:
        """What went wrong, in words, and the way back."""
        return self._page("fault", status=status, message=message)

    def tree(self) -> Rendered:
        """JSON of the icicle: taxa, parents, counts and a picture of each. Pruned from the finest rank where large."""

        def render() -> str:
            taxa, document = self._tree
            return document[:-1] + ',"thumbnails":' + json.dumps(["", *self._thumbnails(taxa)]) + "}"

        return self._once("tree", self._store.version, render)

    # parts

    def _picture(self, kept: Kept) -> str:
        ask = ask_of(kept.recipe, self._model.ranks)
        twin = self._twins.of(kept) if self._twins is not None else None
        return self._page(
            "picture",
            kept=kept,
            taxon=self._model.ids.get(kept.lineage),
            title=ask.title,
            command=command_line(ask, self._model),
            python=python_lines(ask, self._model),
            twin=twin,
            photograph=self._photograph_of(twin),
            why_no_twin=self._why_no_twin(),
        )

    def _taxon(self, taxon: int, lineage: Lineage) -> str:
        strip = self._store.strip(lineage)
        path = self._model.path(taxon)
        rows = [self._rank_row(*pair) for pair in zip(path, strip, strict=True)]
        in_strip = {kept.id for kept in strip if kept is not None}
        others = [kept for kept in self._store.of_taxon(lineage) if kept.id not in in_strip]
        return self._page(
            "taxon",
            taxon=taxon,
            lineage=lineage,
            rows=rows,
            has_strip=bool(in_strip),
            next_seed=1 + max((int(kept.recipe["seed"]) for kept in strip if kept is not None), default=-1),
            why_no_twin=self._why_no_twin(),
            looks_for_twins=self._twins is not None,
            others=others[:_NUM_OTHERS],
            children=self._listed(self._model.children.get(taxon, [])[:_NUM_CHILDREN]),
            other_names=self._model.other_names.get(taxon, []),
            num_children=len(self._model.children.get(taxon, ())),
            num_species=self._model.finest_below[taxon],
            num_photographs=self._num_photographs(taxon),
            photographs=self._photographs.shown(taxon) if self._photographs else None,
            evaluated=self._evaluated,
            is_judged=lineage in self._trusted,
            trusted=self._trusted.get(lineage),
            most_rows=self._limits.pictures // max(1, len(path)),
        )

    def _rank_row(self, taxon: int, picture: Kept | None) -> RankRow:
        lineage, evaluated = self._model.lineages[taxon], self._evaluated
        rank = str(lineage.rank)
        twin = self._twins.of(picture) if self._twins is not None and picture is not None else None
        return RankRow(
            taxon,
            rank,
            lineage.label,
            picture,
            twin,
            self._photograph_of(twin),
            tuple(self._photographs.shown(taxon, 1)) if self._photographs else (),
            self._num_photographs(taxon),
            evaluated.taxa.get(lineage) if evaluated else None,
            evaluated.ranks.get(rank) if evaluated else None,
            evaluated.real.get(rank) if evaluated else None,
        )

    def _num_photographs(self, taxon: int) -> int | None:
        """That taught the taxon; None where nobody says."""
        if self._photographs is not None:
            return self._photographs.count(taxon)
        known = self._evaluated.num_photographs if self._evaluated else {}
        return known.get(self._model.lineages[taxon])

    def _listed(self, taxa: Sequence[int]) -> list[Listed]:
        model = self._model
        return [
            Listed(
                taxon,
                model.lineages[taxon].label,
                str(model.lineages[taxon].rank),
                model.common_name(taxon),
                model.finest_below[taxon],
                self._num_photographs(taxon),
            )
            for taxon in taxa
        ]

    def _where(self, taxon: int) -> str:
        return " › ".join(self._model.lineages[above].label for above in self._model.path(taxon)[:-1])

    def _photograph_of(self, twin: Twin | None) -> Photograph | None:
        return self._photographs.told(twin.row) if twin is not None and self._photographs is not None else None

    def _why_no_twin(self) -> str:
        if self._photographs is None:
            return "The training photographs are not at hand: start the page with --data."
        if self._twins is None:
            return "Nobody looked: start the page with --extractor as well."
        return self._twins.state

    @cached_property
    def _tree(self) -> tuple[list[int], str]:
        """Its taxa, and as JSON all of it that stays as it is."""
        model = self._model
        ranks = list(model.ranks)
        while len(taxa := [t for t, one in model.lineages.items() if one.rank in ranks]) > self._limits.tree_taxa:
            ranks.pop()
        by_photographs = self._photographs is not None
        counts = [self._photographs.count(t) if self._photographs else model.finest_below[t] for t in taxa]
        document = {
            "ids": ["all", *(str(taxon) for taxon in taxa)],
            "parents": ["", *("all" if (above := model.parents[t]) is None else str(above) for t in taxa)],
            "labels": [html.escape(model.name), *(html.escape(model.lineages[taxon].label) for taxon in taxa)],
            "ranks": ["all taxa of", *(str(model.lineages[taxon].rank) for taxon in taxa)],
            "counts": [sum(count for t, count in zip(taxa, counts, strict=True) if model.parents[t] is None), *counts],
            "unit": "training photographs" if by_photographs else "species",
        }
        return taxa, json.dumps(document, separators=(",", ":"))

    def _thumbnails(self, taxa: Sequence[int]) -> Iterator[str]:
        """The address of a picture of each taxon, drawn or a photograph; "" where there is none."""
        drawn = self._store.newest()
        for taxon in taxa:
            picture = drawn.get(self._model.lineages[taxon])
            row = self._photographs.first(taxon) if self._photographs else None
            yield f"/pictures/{picture.id}.png" if picture else "" if row is None else f"/photographs/{row}.jpg"

    def _once(self, key: object, version: object, render: Callable[[], str]) -> Rendered:
        """Rendered anew only where what it shows is other than it was."""
        kept = self._kept.get(key)
        if kept is not None and kept.version == version:
            return kept
        body = render().encode("utf-8", "replace")
        made = Rendered(body, f'"{hashlib.sha256(body).hexdigest()[:20]}"', version)
        self._kept.put(key, made, len(body))
        return made

    def _page(self, name: str, **values: Any) -> str:
        shown: Mapping[str, Any] = {"ranks": self._model.ranks, **values}
        return self._environment.get_template(f"{name}.html.jinja").render(shown)
