"""What every conditioner is: lineages in, cross-attention input out, parameters in named groups."""

# Letters: B batch, U unique lineages, T tokens, D width.
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.text import TokenStates
from taxadiffusion.base.transfer import moved
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank
from taxadiffusion.sections import SettingsSection

NameGain = Annotated[float, Field(gt=0, le=100)]
"""How much larger the difference of a name's states from those of "none" is made."""


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a conditioner's settings are chosen by, beside what the user set.

    taxa: every taxon, over `ranks`. width, num_text_tokens: of the base's token states; `length` counts a text's
    tokens. embedding_width: of the other model of names, where there is one (`ConditionerSettings.name_encoder`).
    """

    ranks: Sequence[Rank]
    taxa: Sequence[Lineage]
    width: int
    num_text_tokens: int
    length: Callable[[str], int]
    embedding_width: int | None = None


class ConditionerSettings(SettingsSection):
    """What a conditioner is built by; an adapter's card holds it. `kind` tells one conditioner from the others."""

    kind: str = ""

    @property
    def extra_tokens(self) -> int:
        """How many of the last tokens have a cross-attention of their own (`base.extra_attention`)."""
        return 0

    @classmethod
    def of_run(cls, section: Any, facts: RunFacts) -> Self:  # noqa: ARG003
        """From what the user set (`ConditionSection`) and what the run's data and base ask for."""
        return cls()

    @classmethod
    def gain_key(cls, section: Any) -> str | None:  # noqa: ARG003
        """The user's setting that enlarges the names this conditioner reads; None: it reads none."""
        return None

    @classmethod
    def name_encoder(cls, section: Any) -> str | None:  # noqa: ARG003
        """The other model of names that embeds every taxon once (`Conditioner.fill`); None: the base's own text."""
        return None


class WithGain(ConditionerSettings):
    """A gain of 1 is left out where settings are written: byte for byte as earlier versions wrote them."""

    @model_serializer(mode="wrap")
    def _without_gain(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        document: dict[str, object] = written(self)
        if document.get("name_gain") == 1.0:
            document.pop("name_gain")
        return document


class Conditioner(nn.Module, ABC):
    """Lineages → (B, T, D). The empty lineage is the null condition.

    Ranks that the model does not know are left out; a lineage that has no other raises `DataError`.
    """

    settings_class: ClassVar[type[ConditionerSettings]]

    def __init__(
        self,
        ranks: Sequence[Rank],
        states: TokenStates,
        settings: ConditionerSettings,
        taxa: Iterable[Lineage] = (),  # noqa: ARG002
        *,
        seed: int = 0,  # noqa: ARG002
    ) -> None:
        """states: a text encoder, or its states from disk. taxa: every taxon, for tables of taxa. seed: of weights."""
        super().__init__()
        self.ranks = tuple(ranks)
        self.settings = settings
        # Token states are an input (a text encoder, or a file): no part of this module's state.
        self.__dict__["states"] = states
        # Where the module lies, whether or not it has parameters; never saved.
        self.register_buffer("_place", torch.zeros(()), persistent=False)

    states: TokenStates
    _place: Tensor

    @property
    def device(self) -> torch.device:
        """Where conditions are; states of names come from wherever they are kept."""
        return self._place.device

    def forward(self, lineages: Sequence[Lineage]) -> Tensor:
        """(B, T, D) float32; every distinct lineage is encoded once."""
        return self.distinct(lineages).expanded()

    def distinct(self, lineages: Sequence[Lineage]) -> Conditions:
        """The same, each distinct condition once."""
        known = [self._known(lineage) for lineage in lineages]
        unique = {lineage: index for index, lineage in enumerate(dict.fromkeys(known))}
        table = moved(self.encode(list(unique)), self.device)  # (U, T, D)
        return Conditions(table, moved(torch.tensor([unique[lineage] for lineage in known]), table.device))

    def _known(self, lineage: Lineage) -> Lineage:
        known = lineage.only(self.ranks)
        if lineage and not known:
            raise DataError(f"{lineage}: has none of the ranks that this model knows ({', '.join(self.ranks)})")
        return known

    @abstractmethod
    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T, D) of distinct lineages that hold known ranks only."""

    @abstractmethod
    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """Every text whose token states these lineages, their truncations and their single holes need; no repeats."""

    @abstractmethod
    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Parameters that can be trained: group → name within this module → parameter."""

    def train_only(self, groups: Collection[str]) -> None:
        """Let the named groups learn; everything else is frozen, and frozen means `eval()` (F3)."""
        self.eval()
        for name, parameters in self.parameter_groups().items():
            for parameter in parameters.values():
                parameter.requires_grad_(name in groups)

    def name_spread(self, lineages: Sequence[Lineage]) -> dict[Rank, float]:  # noqa: ARG002
        """For each encoder of names: how far apart it puts those of the lineages. {} where no encoder is trained."""
        return {}

    def fill(self, embed: Callable[[Sequence[Lineage]], NDArray[np.float32]]) -> None:
        """Write what another model of names says of every taxon: `embed` gives (N, E). Nothing, where none is asked."""

    def carried(self, state: Mapping[str, Tensor], taxa: Iterable[Lineage]) -> dict[str, Tensor]:  # noqa: ARG002
        """The weights of such a conditioner of fewer taxa, `taxa`, as those of this one: what is new stays as it is.

        Raises `CheckpointError` for weights that are not of those taxa.
        """
        return dict(state)

    def loaded(self) -> None:
        """Called after parameters were written from outside."""


def single_holes(lineage: Lineage) -> list[Lineage]:
    """The lineage, its truncations, and each of them with any one of its ranks missing."""
    truncations = [lineage.truncated(rank) for rank in lineage.ranks]
    return [
        *truncations,
        *(truncation.without(rank) for truncation in truncations for rank in truncation.ranks),
    ]
