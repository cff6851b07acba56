"""What every conditioner is: lineages in, cross-attention input out, parameters in named groups."""

# Letters: B batch, U unique lineages, T tokens, D width.
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence

import torch
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
from torch import Tensor, nn

from taxadiffusion.base.attention import Conditions
from taxadiffusion.base.text import TokenStates
from taxadiffusion.base.transfer import moved
from taxadiffusion.errors import DataError
from taxadiffusion.names import Lineage, Rank


class WithGain(BaseModel):
    """A gain of 1 is left out where settings are written: byte for byte as earlier versions wrote them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

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

    def __init__(self, ranks: Sequence[Rank], states: TokenStates, settings: BaseModel) -> None:
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

    def loaded(self) -> None:
        """Called after parameters were written from outside."""


def single_holes(lineage: Lineage) -> list[Lineage]:
    """The lineage, its truncations, and each of them with any one of its ranks missing."""
    truncations = [lineage.truncated(rank) for rank in lineage.ranks]
    return [
        *truncations,
        *(truncation.without(rank) for truncation in truncations for rank in truncation.ranks),
    ]
