"""The taxonomy conditioner: `c^(i) = Σ_{r ≤ i} E_r(T(s_r))`, one transformer encoder a rank."""

# Letters: U unique lineages or texts, T tokens, D width.
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import Tensor, nn

from taxadiffusion.base.text import TokenStates, rank_text
from taxadiffusion.base.transfer import moved
from taxadiffusion.condition.conditioner import Conditioner, ConditionerSettings, NameGain, RunFacts
from taxadiffusion.condition.own_vectors import OwnVectors
from taxadiffusion.errors import SettingsError
from taxadiffusion.names import Lineage, Rank, rank_index
from taxadiffusion.sections import SettingsSection, later
from taxadiffusion.stages import encoder_group

_NUM_COMPARED = 64


_RETIRED = ("zero_init", "warm_start")
"""Of earlier versions. Cards still hold them, as off: byte for byte, so that a model's hash stays what it was."""


_FeedForward = Annotated[int, Field(ge=1, le=65536)]


class RankEncoderSection(SettingsSection):
    """What a user may set of the rank encoders.

    norm_first: normalise before attention and feed-forward, and once more at the end: a name's states pass by both.
    Normalising after them, an encoder trained at a high rate may come to give every name the same states (docs/log.md).
    name_gain: how much larger the difference of a name's token states from those of "none" is made; a text encoder that
    never met a name tells two of them apart only faintly.
    vector_gain: how much of a vector of each taxon's own is added to what its names say. Names pass through encoders
    that all share; such a vector moves alone, and each is zero until a photograph of its taxon is learnt from.
    """

    num_layers: int = Field(default=2, ge=1, le=64, description="of each rank's encoder (paper: 2)")
    num_heads: int = Field(default=8, ge=1, le=256, description="paper: 8")
    feed_forward: _FeedForward | None = Field(
        default=None, description="none: 8/3 of the width, the paper's 2048 at 768"
    )
    dropout: float = Field(default=0.1, ge=0, lt=1, description="inside the encoder being trained (paper: 0.1)")
    name_gain: NameGain = Field(default=1.0, description="names against “none”, enlarged by this (paper: 1)")
    vector_gain: float = later(
        0.0, "each taxon's own vector beside its names, enlarged by this; 0: none (paper)", ge=0, le=1000
    )
    norm_first: bool = Field(
        default=False, description="normalise before attention and feed-forward: names pass by both (paper: after)"
    )


class TaxonomySettings(RankEncoderSection, ConditionerSettings):
    """The rank encoders; the defaults are the paper's."""

    kind: Literal["taxonomy"] = "taxonomy"
    feed_forward: _FeedForward = 2048

    @classmethod
    def of_run(cls, section: RankEncoderSection, facts: RunFacts) -> Self:
        """As the user set it; the feed-forward, if not set, follows from the base's width."""
        own = {name: getattr(section, name) for name in RankEncoderSection.model_fields}
        return cls(**own | {"feed_forward": section.feed_forward or facts.width * 8 // 3})

    @classmethod
    def gain_key(cls, section: RankEncoderSection) -> str | None:  # noqa: ARG003
        return "name_gain"

    @model_validator(mode="before")
    @classmethod
    def _without_retired(cls, value: Any) -> Any:
        """They said how an encoder began; what it became is in the weights."""
        return {k: v for k, v in value.items() if k not in _RETIRED} if isinstance(value, dict) else value

    @model_serializer(mode="wrap")
    def _with_retired(self, written: SerializerFunctionWrapHandler) -> dict[str, object]:
        document: dict[str, object] = written(self)
        if not self.vector_gain:
            document.pop("vector_gain")  # byte for byte as earlier versions wrote it
        return document | dict.fromkeys(_RETIRED, False)


class TaxonomyConditioner(Conditioner):
    """The condition module.

    A term exists for every known rank down to the lineage's depth: a rank without a name there (a hole) contributes
    `E_r(T("r: none"))`, ranks below it (truncation) nothing. The empty lineage is the base's own null, `T("")`, which
    training shows to the denoiser through condition dropout (M5, F2).

    Encoders that a stage does not train give the same states at every step, so they are kept by text, one text
    computed alone: what is kept depends on no batch. `cache_bytes` bounds them; the least recently used leave first.
    """

    settings_class = TaxonomySettings
    settings: TaxonomySettings

    def __init__(
        self,
        ranks: Sequence[Rank],
        states: TokenStates,
        settings: TaxonomySettings,
        taxa: Iterable[Lineage] = (),
        *,
        seed: int = 0,
        cache_bytes: int = 1 << 30,
    ) -> None:
        super().__init__(ranks, states, settings)
        if states.width % settings.num_heads:
            raise SettingsError(f"num_heads {settings.num_heads} does not divide the text width {states.width}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoders = nn.ModuleDict({rank: _rank_encoder(states.width, settings) for rank in ranks})
        self.own = OwnVectors(taxa, ranks, states.width, states.num_tokens) if settings.vector_gain else None
        self._held: set[Rank] = set()
        self._kept: OrderedDict[tuple[Rank, str], Tensor] = OrderedDict()  # each (T, D)
        self._cache_bytes = cache_bytes

    def encode(self, lineages: Sequence[Lineage]) -> Tensor:
        """(U, T, D): the sum over ranks, coarse to fine (M1), and where there are some each taxon's own vectors."""
        device = next(self.parameters()).device
        total = torch.zeros(len(lineages), self.states.num_tokens, self.states.width, device=device)
        null_rows = [row for row, lineage in enumerate(lineages) if not lineage]
        if null_rows:
            null = moved(self.states([""]), device).expand(len(null_rows), -1, -1)
            total = total.index_add(0, moved(torch.tensor(null_rows), device), null)
        for rank in self.ranks:
            rows = [row for row, lineage in enumerate(lineages) if _reaches(lineage, rank)]
            texts = [rank_text(rank, lineages[row].get(rank)) for row in rows]
            if rows:
                term = self._term(rank, texts)  # (rows, T, D)
                total = total.index_add(0, moved(torch.tensor(rows), device), term)
            elif self._learns(rank):
                # No lineage of this batch has the rank: the encoder still belongs to the graph, with gradient zero.
                total = total + 0.0 * self._encoded(rank, [rank_text(rank, None)])
        if self.own is not None and lineages:
            total = total + self.settings.vector_gain * self.own.summed(lineages)
        return total

    def _term(self, rank: Rank, texts: Sequence[str]) -> Tensor:
        """E_r(T(s_r)) of one rank's texts, each distinct text encoded once: (len(texts), T, D)."""
        unique = {text: index for index, text in enumerate(dict.fromkeys(texts))}
        if rank in self._held:
            table = torch.stack([self._kept_state(rank, text) for text in unique])
        else:
            table = self._encoded(rank, list(unique))
        return table.index_select(0, moved(torch.tensor([unique[text] for text in texts]), table.device))

    def _encoded(self, rank: Rank, texts: Sequence[str]) -> Tensor:
        encoder = self.encoders[rank]
        states = self.states(texts)  # (U, T, D)
        if self.settings.name_gain != 1.0:
            none = self.states([rank_text(rank, None)])
            states = none + self.settings.name_gain * (states - none)
        return encoder(moved(states, next(encoder.parameters()).device))  # type: ignore[no-any-return]

    def _kept_state(self, rank: Rank, text: str) -> Tensor:
        key = (rank, text)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        with torch.no_grad():
            state = self._encoded(rank, [text])[0]
        self._kept[key] = state
        while len(self._kept) > 1 and len(self._kept) * state.nbytes > self._cache_bytes:
            self._kept.popitem(last=False)
        return state

    def _learns(self, rank: Rank) -> bool:
        return torch.is_grad_enabled() and any(p.requires_grad for p in self.encoders[rank].parameters())

    def texts(self, lineages: Iterable[Lineage]) -> list[str]:
        """The null's text, every rank's "none" and every rank's names."""
        found = dict.fromkeys(["", *(rank_text(rank, None) for rank in self.ranks)])
        for lineage in lineages:
            found.update(dict.fromkeys(rank_text(r, name) for r, name in lineage.names if r in self.encoders))
        return list(found)

    def parameter_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """One group a rank: "encoder.order" …, with the vectors of that rank's taxa."""
        return {
            encoder_group(rank): {
                f"encoders.{rank}.{name}": parameter for name, parameter in self.encoders[rank].named_parameters()
            }
            | ({} if self.own is None else {f"own.{rank}": self.own[rank]})
            for rank in self.ranks
        }

    def train_only(self, groups: Collection[str]) -> None:
        """As every conditioner; a trained encoder is in training mode, and the others' states are kept from now on."""
        super().train_only(groups)
        trained = {rank for rank in self.ranks if encoder_group(rank) in groups}
        for rank in trained:
            self.encoders[rank].train()
        self._forget(trained)
        self._held = set(self.ranks) - trained

    def name_spread(self, lineages: Sequence[Lineage]) -> dict[Rank, float]:
        """For each rank: how much `E_r` differs between names, as a share of its size (root mean squares).

        Of at most 64 names a rank; a rank with fewer than two is left out. Near 0 the encoder has collapsed: all names
        have the same condition.
        """
        found = {}
        for rank in self.ranks:
            names = sorted({name for lineage in lineages if (name := lineage.get(rank)) is not None})[:_NUM_COMPARED]
            if len(names) > 1:
                with torch.no_grad():
                    states = self._encoded(rank, [rank_text(rank, name) for name in names])  # (names, T, D)
                apart, size = (x.square().mean().sqrt() for x in (states - states.mean(dim=0), states))
                found[rank] = float(apart / size.clamp_min(1e-12))
        return found

    def carried(self, state: Mapping[str, Tensor], taxa: Iterable[Lineage]) -> dict[str, Tensor]:
        """The encoders as they are; a new taxon has no vector yet."""
        if self.own is None:
            return dict(state)
        tables = {rank: state[f"own.{rank}"] for rank in self.ranks if f"own.{rank}" in state}
        return {**state, **{f"own.{rank}": table for rank, table in self.own.carried(tables, taxa).items()}}

    def loaded(self) -> None:
        self._forget(self.ranks)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        self._forget(self.ranks)  # moved or cast
        return super()._apply(*args, **kwargs)  # type: ignore[no-untyped-call]

    def _forget(self, ranks: Iterable[Rank]) -> None:
        gone = set(ranks)
        for key in [key for key in self._kept if key[0] in gone]:
            del self._kept[key]


def _reaches(lineage: Lineage, rank: Rank) -> bool:
    depth = lineage.depth
    return depth is not None and rank_index(rank) <= rank_index(depth)


def _rank_encoder(width: int, settings: TaxonomySettings) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width,
        settings.num_heads,
        settings.feed_forward,
        settings.dropout,
        batch_first=True,
        norm_first=settings.norm_first,
    )
    last = nn.LayerNorm(width) if settings.norm_first else None
    return nn.TransformerEncoder(layer, settings.num_layers, last, enable_nested_tensor=False)
