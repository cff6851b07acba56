"""What a picture is asked for by, and the conditions that its guidance predicts under."""

# Letters: B pictures of a batch, M predictions of a step (one a picture and condition), T tokens, D width.
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.transfer import moved
from taxadiffusion.condition import Conditioner
from taxadiffusion.errors import SettingsError
from taxadiffusion.guidance import Context, Guidance
from taxadiffusion.names import Lineage, Rank

NO_GUIDANCE = Guidance()

Blend = tuple[tuple[Lineage, float], ...]
"""A condition that is a sum of taxa's conditions with these weights, which add up to 1."""

_ONE = 1e-6  # how far from 1 the weights may add up to


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to make. `towards` mixes conditions (M8): `(1−fraction)·c(lineage) + fraction·c(towards)`.

    sister: what guidance from a sister is away from; none: the null. blend: in place of the lineage's own condition, a
    sum of others', as for an ancestor that no photograph shows. context: a caption of the base beside all that.
    """

    lineage: Lineage
    seed: int
    guidance: Guidance = NO_GUIDANCE
    towards: Lineage | None = None
    fraction: float = 0.0
    sister: Lineage | None = None
    blend: Blend = ()
    context: Context | None = None

    def __post_init__(self) -> None:
        """Raises `SettingsError` for a mix or blend that its guidance cannot act on."""
        if self.blend:
            self._check_blend()
        if self.towards is None:
            return
        if self.guidance.base == "sister":
            raise SettingsError("guidance from a sister does not act on a mix of two taxa: choose another base")
        self.guidance.require_mixable(self.lineage, self.towards)

    def _check_blend(self) -> None:
        total = math.fsum(weight for _, weight in self.blend)
        if not abs(total - 1.0) <= _ONE:
            raise SettingsError(f"the weights of a blend add up to {total:g}; they must add up to 1")
        if self.towards is not None or self.guidance.rank is not None or self.guidance.rank_scales:
            raise SettingsError("a blend of conditions has no ranks: guide it from the null, and mix it with nothing")


@dataclass(frozen=True, slots=True)
class Mix:
    """A condition: of one lineage, between two, or of many. caption: of that text instead."""

    lineage: Lineage
    towards: Lineage | None = None
    fraction: float = 0.0
    blend: Blend = ()
    caption: str | None = None

    @property
    def parts(self) -> tuple[Lineage, ...]:
        """The lineages whose conditions it is made of."""
        if self.caption is not None:
            return ()
        if self.blend:
            return tuple(lineage for lineage, _ in self.blend)
        return (self.lineage,) if self.towards is None else (self.lineage, self.towards)


def target(request: Request) -> Mix:
    """What the picture is to show."""
    return Mix(request.lineage, request.towards, request.fraction, request.blend)


def terms(request: Request) -> tuple[tuple[Mix, float], ...]:
    """The guidance's terms, and those of the context, which hangs on no taxon.

    M9: `… + scale·(ε(T(caption)) − ε(T("")))`. T("") is the null of every model that can be given a caption (M5), so
    where the null guides too it is predicted once.
    """
    mine, context = _of_taxa(request), request.context
    if context is None or not context.scale:
        return mine
    null = Mix(Lineage())
    merged = dict([*mine, (Mix(Lineage(), caption=context.caption), context.scale)])
    merged[null] = merged.get(null, 0.0) - context.scale
    return tuple((mix, coefficient) for mix, coefficient in merged.items() if coefficient != 0.0)


def _of_taxa(request: Request) -> tuple[tuple[Mix, float], ...]:
    """Both ends of a mix are cut alike, and a blend stands for its lineage."""
    mine = request.guidance.terms(request.lineage, request.sister)
    if request.towards is None:
        blended = {request.lineage: target(request)} if request.blend else {}
        return tuple((blended.get(lineage, Mix(lineage)), coefficient) for lineage, coefficient in mine)
    other = request.guidance.terms(request.towards)
    return tuple(
        (Mix(lineage, towards, request.fraction), coefficient)
        for (lineage, coefficient), (towards, _) in zip(mine, other, strict=True)
    )


@torch.no_grad()
def conditions_of(
    conditioner: Conditioner, mixes: Sequence[Mix], known: Mapping[Mix, Tensor], rank: Rank | None = None
) -> dict[Mix, Tensor]:
    """Every condition (T, D), once; those that are known are used again. rank: where lineages are cut, if they are.

    Raises `SettingsError` for a caption beside conditions of another number of tokens: no U-Net reads both at once.
    """
    new = [mix for mix in mixes if mix not in known]
    missing = dict.fromkeys(part for mix in new for part in mix.parts)
    cut = {part: part if rank is None else part.truncated(rank) for part in missing}
    states = dict(zip(missing, conditioner([cut[part] for part in missing]), strict=True)) if missing else {}
    captions = list(dict.fromkeys(mix.caption for mix in new if mix.caption is not None))
    encoded = moved(conditioner.states(captions), conditioner.device) if captions else ()
    texts = dict(zip(captions, encoded, strict=True))
    found = {
        mix: known[mix] if mix in known else _mixed(mix, states) if mix.caption is None else texts[mix.caption]
        for mix in mixes
    }
    _require_alike(found)
    return found


def _require_alike(found: Mapping[Mix, Tensor]) -> None:
    tokens = {mix.caption is None: len(states) for mix, states in found.items()}
    if len(set(tokens.values())) > 1:
        raise SettingsError(
            f"this model cannot be given a context: its conditions of taxa have {tokens[True]} tokens, a caption has "
            f"{tokens[False]}"
        )


def _mixed(mix: Mix, states: Mapping[Lineage, Tensor]) -> Tensor:
    """(T, D), M8."""
    if mix.blend:
        return torch.stack([weight * states[lineage] for lineage, weight in mix.blend]).sum(0)
    if mix.towards is None:
        return states[mix.lineage]
    return torch.lerp(states[mix.lineage], states[mix.towards], mix.fraction)


@dataclass(frozen=True, slots=True)
class Predictions:
    """What one step predicts: M conditions, the picture each belongs to and the coefficient it enters with."""

    conditions: Conditions
    pictures: Tensor  # (M,)
    coefficients: Tensor  # (M,)


def gathered(
    batch: Sequence[Request], acting: Sequence[bool], conditions: Mapping[Mix, Tensor], device: torch.device
) -> Predictions:
    """All predictions of a step, for all pictures: where guidance does not act, the target alone."""
    return _predictions(
        [
            (mix, picture, coefficient)
            for picture, (request, acts) in enumerate(zip(batch, acting, strict=True))
            for mix, coefficient in (terms(request) if acts else ((target(request), 1.0),))
        ],
        conditions,
        device,
    )


def gathered_weaker(
    batch: Sequence[Request], acting: Sequence[bool], conditions: Mapping[Mix, Tensor], device: torch.device
) -> Predictions | None:
    """What the weaker model predicts of the pictures that are guided away from it; None: nothing."""
    entries = [
        (target(request), picture, request.guidance.weaker_coefficient)
        for picture, (request, acts) in enumerate(zip(batch, acting, strict=True))
        if acts and request.guidance.weaker_coefficient
    ]
    return _predictions(entries, conditions, device) if entries else None


def _predictions(
    entries: Sequence[tuple[Mix, int, float]], conditions: Mapping[Mix, Tensor], device: torch.device
) -> Predictions:
    mixes, pictures, coefficients = zip(*entries, strict=True)
    rows = {mix: row for row, mix in enumerate(dict.fromkeys(mixes))}
    return Predictions(
        Conditions(
            moved(torch.stack([conditions[mix] for mix in rows]), device),
            moved(torch.tensor([rows[mix] for mix in mixes]), device),
            kept={},
        ),
        moved(torch.tensor(pictures), device),
        moved(torch.tensor(coefficients), device),
    )
