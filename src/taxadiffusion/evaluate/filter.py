"""A filter of generated pictures: what an expert let pass, learnt from judgements, as a logistic on features."""

# Letters: N pictures, D feature width.
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, ValidationError, model_validator
from sklearn.model_selection import StratifiedKFold

from taxadiffusion.errors import CheckpointError, DataError, SettingsError
from taxadiffusion.features import Extractor
from taxadiffusion.files import whole
from taxadiffusion.metrics.intervals import Interval, mean_over_taxa
from taxadiffusion.metrics.probe import Probe, choose_penalty, fit_probe
from taxadiffusion.names import Lineage
from taxadiffusion.sections import SettingsSection

NUM_FOLDS = 5
FEWEST = 10
"""Pictures that passed, and pictures that failed, which a filter needs at least."""

THRESHOLD = 0.5

_LIMIT = 700.0  # beyond which the exponential is no number
_Share = Annotated[float, Field(ge=0, le=1)]


class Agreement(SettingsSection):
    """How often the filter says what the expert said of pictures that it was not fitted on.

    commoner: how often always saying the commoner of the two would.
    """

    share: _Share
    low: _Share
    high: _Share
    commoner: _Share


class Filter(SettingsSection):
    """Lets a picture pass where `σ(intercept + Σ coefficient·(feature − mean)/scale)` reaches the threshold."""

    format: Literal["taxadiffusion-filter"] = "taxadiffusion-filter"
    schema_version: Literal[1] = Field(default=1, alias="schema")
    extractor: Annotated[str, Field(min_length=1)]
    """`Extractor.name` of the network whose features it reads."""
    extractor_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    size_px: Annotated[int, Field(ge=8, le=4096)]
    mean: list[FiniteFloat]
    scale: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]]
    coefficients: list[FiniteFloat]
    intercept: FiniteFloat
    threshold: _Share
    num_passed: Annotated[int, Field(ge=1)]
    num_failed: Annotated[int, Field(ge=1)]
    agreement: Agreement

    @model_validator(mode="after")
    def _of_one_width(self) -> Filter:
        widths = {len(self.mean), len(self.scale), len(self.coefficients)}
        if len(widths) != 1 or not self.mean:
            raise ValueError(f"mean, scale and coefficients must be of one length, got {sorted(widths)}")
        return self

    @classmethod
    def read(cls, path: Path) -> Filter:
        """Raises `CheckpointError` for anything but what `write` wrote."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"])) or "the file"
            raise CheckpointError(f"{path}: is no filter: {where}: {fault['msg']}") from error

    def write(self, path: Path) -> None:
        try:
            with whole(path) as aside:
                aside.write_text(self.model_dump_json(indent=1, by_alias=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(f"{path}: the filter cannot be written: {error.strerror}") from error

    def require(self, extractor: Extractor, size_px: int | None = None) -> None:
        """Raises `SettingsError` where the network is not the one whose features it was fitted on, or where pictures
        that are looked at at `size_px` were judged at another size."""
        if size_px not in (None, self.size_px):
            raise SettingsError(f"the filter judges pictures of {self.size_px} px, and these are of {size_px} px")
        if extractor.content_hash != self.extractor_sha256:
            raise SettingsError(
                f"the filter was fitted on features of {self.extractor} ({self.extractor_sha256[:12]}…), and "
                f"{extractor.name} is another network; give that one with --extractor"
            )

    def probabilities(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """(N, D) features → (N,) that the expert would let each pass. Raises `SettingsError` for another width."""
        if features.ndim != 2 or features.shape[1] != len(self.mean):
            raise SettingsError(f"the filter reads {len(self.mean)} features a picture, got {features.shape}")
        standard = (features.astype(np.float64) - np.array(self.mean)) / np.array(self.scale)
        odds = self.intercept + standard @ np.array(self.coefficients)
        found: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-np.clip(odds, -_LIMIT, _LIMIT)))
        return found

    def accepts(self, features: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(N, D) features → (N,) whether each passes."""
        return self.probabilities(features) >= self.threshold


def fit_filter(
    features: NDArray[np.float32],
    passed: Sequence[bool],
    lineages: Sequence[Lineage],
    extractor: Extractor,
    size_px: int,
    seed: int = 0,
) -> Filter:
    """Fit on (N, D) features, by `extractor`, of judged pictures at `size_px`.

    The penalty is chosen by cross-validation within what is fitted; the agreement is over pictures that were held out
    in turn, with its interval over taxa. Raises `DataError` for fewer than `FEWEST` pictures of either kind.
    """
    labels = np.array(passed, dtype=np.intp)
    number = int(labels.sum())
    if min(number, len(labels) - number) < FEWEST:
        raise DataError(
            f"{number} pictures passed and {len(labels) - number} failed; a filter needs {FEWEST} of each to learn from"
        )
    held_out = np.zeros(len(labels), dtype=np.bool_)
    folds = StratifiedKFold(NUM_FOLDS, shuffle=True, random_state=seed)
    for learnt, rest in folds.split(features, labels):
        held_out[rest] = _fitted(features[learnt], labels[learnt], seed).predict(features[rest]).astype(bool)
    agreed = _over_taxa(held_out == labels.astype(bool), lineages)
    probe = _fitted(features, labels, seed)
    commoner = max(number, len(labels) - number) / len(labels)
    return Filter(
        extractor=extractor.name,
        extractor_sha256=extractor.content_hash,
        size_px=size_px,
        mean=probe.mean.tolist(),
        scale=probe.scale.tolist(),
        coefficients=(probe.weight[:, 1] - probe.weight[:, 0]).tolist(),
        intercept=float(probe.bias[1] - probe.bias[0]),
        threshold=THRESHOLD,
        num_passed=number,
        num_failed=len(labels) - number,
        agreement=Agreement(share=agreed.mean, low=agreed.low, high=agreed.high, commoner=commoner),
    )


def _fitted(features: NDArray[np.float32], labels: NDArray[np.intp], seed: int) -> Probe:
    penalty = choose_penalty(features, labels, seed=seed).inverse_penalty
    return fit_probe(features, labels, ("fail", "pass"), inverse_penalty=penalty)


def _over_taxa(agreed: NDArray[np.bool_], lineages: Sequence[Lineage]) -> Interval:
    """The share of pictures, as a mean over taxa."""
    by_taxon: dict[Lineage, list[float]] = {}
    for one, lineage in zip(agreed.tolist(), lineages, strict=True):
        by_taxon.setdefault(lineage, []).append(float(one))
    found = mean_over_taxa([[np.array(values)] for values in by_taxon.values()], share=True)
    return found if found.known else Interval(found.mean, 0.0, 1.0)
