"""What a visitor asks to be drawn: read from a form under limits, and said again as a command and as Python."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import DEFAULT_SCALE, Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.web.limits import Limits
from taxadiffusion.web.served import ServedModel

UNCONDITIONAL = "unconditional"
NUM_STEPS = 25
DEFAULT = Guidance(DEFAULT_SCALE)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?", re.ASCII | re.IGNORECASE)
_MAX_SEED = 2**63 - 1
_MAX_TAXON = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Ask:
    """Pictures of one taxon, or of a mix of two: `number` seeds from `seed` on, at its own rank or at every one."""

    lineage: Lineage
    number: int = 1
    seed: int = 0
    guidance: Guidance = DEFAULT
    steps: int = NUM_STEPS
    towards: Lineage | None = None
    fraction: float = 0.0
    every_rank: bool = False

    @property
    def drawn(self) -> tuple[tuple[Lineage, int], ...]:
        """Taxon and seed of each picture; at every rank the same seeds, coarse to fine."""
        taxa = [self.lineage.truncated(rank) for rank in self.lineage.ranks] if self.every_rank else [self.lineage]
        return tuple((taxon, seed) for taxon in taxa for seed in range(self.seed, self.seed + self.number))

    @property
    def note(self) -> str:
        """What the recipe of a mix notes, as `generate` writes it."""
        return "" if self.towards is None else f"a mix: {self.fraction:g} of the way to {self.towards.label}"

    @property
    def title(self) -> str:
        if self.towards is None:
            return self.lineage.label
        return f"{self.lineage.label} → {self.towards.label} ({self.fraction:.0%})"


def read_ask(form: Mapping[str, str], model: ServedModel, limits: Limits) -> Ask:
    """From the fields of the form. Raises `SettingsError`, for a taxon that is none `DataError`, saying which field."""
    unknown = sorted(set(form) - {"taxon", "number", "seed", "scale", "rank", "steps", "towards", "fraction", "every"})
    if unknown:
        raise SettingsError(f"the form has no field {unknown[0][:40]!r}")
    towards = model.lineage(_whole(form, "towards", 0, _MAX_TAXON)) if form.get("towards") else None
    rank = form.get("rank", UNCONDITIONAL)
    if rank not in (UNCONDITIONAL, *model.ranks):
        raise SettingsError(f"guidance rank: {rank[:40]!r} is none of {UNCONDITIONAL}, {', '.join(model.ranks)}")
    if form.get("every", "") not in ("", "1"):
        raise SettingsError("every rank: is 1 or left out")
    scale = _number(form, "scale", -limits.scale, limits.scale, DEFAULT_SCALE)
    ask = Ask(
        lineage=model.lineage(_whole(form, "taxon", 0, _MAX_TAXON)),
        number=_whole(form, "number", 1, limits.pictures, 1),
        seed=_whole(form, "seed", 0, _MAX_SEED - limits.pictures, 0),
        guidance=Guidance(scale, None if rank == UNCONDITIONAL else rank),
        steps=_whole(form, "steps", 1, limits.steps, NUM_STEPS),
        towards=towards,
        fraction=_number(form, "fraction", 0.0, 1.0, 0.5) if towards is not None else 0.0,
        every_rank=form.get("every") == "1",
    )
    if len(ask.drawn) > limits.pictures:
        raise SettingsError(f"{len(ask.drawn)} pictures in one job are too many; at most {limits.pictures}")
    if towards is not None:
        if ask.every_rank:
            raise SettingsError("a mix is of one depth, so it is not drawn at every rank")
        ask.guidance.require_mixable(ask.lineage, towards)
    return ask


def ask_of(recipe: Mapping[str, str], ranks: tuple[str, ...]) -> Ask:
    """What makes a picture again, from the recipe that it carries."""
    rank, towards = recipe["guidance_rank"], recipe.get("towards", "")
    other = Lineage.of([(part.partition(": ")[0], part.partition(": ")[2]) for part in towards.split(" > ") if towards])
    return Ask(
        lineage=Lineage.of({rank: recipe.get(rank, "") for rank in ranks}),
        seed=int(recipe["seed"]),
        guidance=Guidance(float(recipe["guidance_scale"]), None if rank == UNCONDITIONAL else rank),
        steps=int(recipe["num_steps"]),
        towards=other or None,
        fraction=float(recipe.get("fraction") or 0),
    )


def command_line(ask: Ask, model: ServedModel) -> str:
    """The command that makes the same pictures, pixel for pixel, and with the same names."""
    words = ["taxadiffusion", "generate", model.name, model.written(ask.lineage), "-n", str(ask.number)]
    words += ["--seed", str(ask.seed), "--guidance-scale", f"{ask.guidance.scale:g}"]
    words += ["--guidance-rank", ask.guidance.rank or UNCONDITIONAL, "--steps", str(ask.steps)]
    if ask.towards is not None:
        words += ["--towards", model.written(ask.towards), "--fraction", f"{ask.fraction:g}"]
    if ask.every_rank:
        words.append("--lineage-strip")
    if model.base is not None:
        words += ["--base", model.base]
    return shlex.join([*words, "--batch-size", "1"])


def python_lines(ask: Ask, model: ServedModel) -> str:
    """The same from Python."""
    given = [f"seed={ask.seed}", f"num_images_per_taxon={ask.number}", f"guidance_scale={ask.guidance.scale!r}"]
    given += [f"guidance_rank={ask.guidance.rank or UNCONDITIONAL!r}", f"num_inference_steps={ask.steps}"]
    if ask.towards is not None:
        given += [f"towards={model.written(ask.towards)!r}", f"fraction={ask.fraction!r}"]
    shown = repr(model.written(ask.lineage))
    call = f"pipeline({shown}, {', '.join([*given, 'batch_size=1'])}).images"
    if ask.every_rank:
        one = f"pipeline({shown}, rank=rank, {', '.join([*given, 'batch_size=1'])}).images"
        call = f"[{one}\n          for rank in {ask.lineage.ranks!r}]"
    base = "" if model.base is None else f", base={model.base!r}"
    return (
        "from taxadiffusion.pipeline import TaxaDiffusionPipeline\n\n"
        f"pipeline = TaxaDiffusionPipeline.from_pretrained({model.name!r}{base})\n"
        f"images = {call}"
    )


def _whole(form: Mapping[str, str], field: str, low: int, high: int, default: int | None = None) -> int:
    text = form.get(field, "").strip()
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise SettingsError(f"{field}: {text[:40]!r} is no whole number from {low} to {high}")
    return int(text)


def _number(form: Mapping[str, str], field: str, low: float, high: float, default: float) -> float:
    text = form.get(field, "").strip()
    if not text:
        return default
    value = float(text) if len(text) < 40 and _NUMBER.fullmatch(text) else math.nan
    if not low <= value <= high:
        raise SettingsError(f"{field}: {text[:40]!r} is no number from {low:g} to {high:g}")
    return float(f"{value:g}")  # as a recipe writes it: what is asked for is what is drawn
