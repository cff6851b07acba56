"""What evidence is worth: the probability that a name is right, rank by rank, fitted on held-out photographs."""

# Letters: N photographs, F features of evidence.
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, ValidationError
from sklearn.linear_model import LogisticRegression

from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.files import whole
from taxadiffusion.identify.walk import Evidence
from taxadiffusion.names import Rank, ordered_ranks
from taxadiffusion.sections import SettingsSection

CALIBRATION = "identify.json"
"""The file's name beside a model's."""

FEWEST = 20
"""Photographs of a rank, right and wrong ones among them, below which its share of right ones stands for all."""

_CLIP = 30.0
_ROUNDING = 1e-9  # the deviation of a constant is seldom exactly 0
_FEATURES = 3


class RankCalibration(SettingsSection):
    """Of one rank: the log-odds that its name is right where the name above is: `intercept + Σ coefficient·feature`."""

    intercept: FiniteFloat
    coefficients: Annotated[list[FiniteFloat], Field(min_length=_FEATURES, max_length=_FEATURES)]
    num_images: Annotated[int, Field(ge=1)]
    num_right: Annotated[int, Field(ge=0)]

    def probability(self, evidence: Evidence) -> float:
        """Between 0 and 1; 1 without a rival."""
        if evidence.rival is None:
            return 1.0
        odds = self.intercept + float(np.dot(self.coefficients, _features(evidence)))
        return 1.0 / (1.0 + math.exp(-max(-_CLIP, min(_CLIP, odds))))


class Calibration(SettingsSection):
    """Of one model, walked in one way; `model_sha256` and `settings` say of which and how."""

    format: Literal["taxadiffusion-identify"] = "taxadiffusion-identify"
    schema_version: Literal[1] = 1
    model_sha256: str
    settings: dict[str, str]
    photographs: str
    """Of which set and split, in words."""
    ranks: dict[Rank, RankCalibration]

    @classmethod
    def read(cls, path: Path) -> Calibration:
        """Raises `CheckpointError` for anything but what `write` wrote."""
        try:
            found = cls.model_validate_json(path.read_bytes())
            ordered_ranks(found.ranks)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValidationError, DataError) as error:
            raise CheckpointError(f"{path}: is no calibration of identify: {_first(error)}") from error
        return found

    def write(self, path: Path) -> None:
        try:
            with whole(path) as aside:
                aside.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise DataError(
                f"{path}: the calibration cannot be written: {error.strerror}; name a file with --calibration"
            ) from error

    def require(self, path: Path, model_sha256: str, settings: Mapping[str, str]) -> None:
        """Raises `CheckpointError` where it is of another model, or of another way to walk."""
        if self.model_sha256 != model_sha256:
            raise CheckpointError(f"{path}: was fitted for another model; fit it anew with --calibrate PREPARED")
        differing = [f"{key}: {self.settings.get(key)} there, {value} now" for key, value in settings.items()
                     if self.settings.get(key) != value]  # fmt: skip
        if differing:
            raise CheckpointError(
                f"{path}: was fitted with other options ({'; '.join(differing)}); use those, or fit it anew with "
                "--calibrate PREPARED"
            )

    def probabilities(self, evidence: Sequence[tuple[Rank, Evidence]]) -> list[float | None]:
        """Of a path, coarsest first: that each name, and all above it, is right. None from a rank on that was not
        calibrated."""
        found: list[float | None] = []
        so_far: float | None = 1.0
        for rank, one in evidence:
            if one.rival is not None:
                known = self.ranks.get(rank)
                so_far = None if known is None or so_far is None else so_far * known.probability(one)
            found.append(so_far)
        return found


def fit_calibration(judged: Mapping[Rank, Sequence[tuple[Evidence, bool]]]) -> dict[Rank, RankCalibration]:
    """By rank, of photographs whose name above is right: the evidence, and whether the name is right.

    A regularised logistic regression; of fewer than `FEWEST` photographs, or where all are right or all wrong, the
    share of right ones, one of each kind added. A rank without a photograph is absent.
    """
    found = {}
    for rank, pairs in judged.items():
        asked = [(evidence, right) for evidence, right in pairs if evidence.rival is not None]
        if not asked:
            continue
        right = np.array([one for _, one in asked])
        number, total = len(asked), int(right.sum())
        slope, intercept = [0.0] * _FEATURES, math.log((total + 1) / (number - total + 1))
        if number >= FEWEST and 0 < total < number:
            slope, intercept = _logistic(np.array([_features(evidence) for evidence, _ in asked]), right)
        found[rank] = RankCalibration(intercept=intercept, coefficients=slope, num_images=number, num_right=total)
    return found


def _logistic(features: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[list[float], float]:
    """Coefficients and intercept for features (N, F) as they are; the penalty is on standardised ones."""
    mean, scale = features.mean(0), features.std(0)
    scale[scale <= _ROUNDING * np.maximum(1.0, np.abs(mean))] = 1.0  # a constant one says nothing
    model = LogisticRegression(C=1.0, max_iter=2000).fit((features - mean) / scale, right)
    slope = model.coef_[0] / scale
    return slope.tolist(), float(model.intercept_[0] - slope @ mean)


def _features(evidence: Evidence) -> NDArray[np.float64]:
    """(F,): standard errors ahead, standard deviations ahead, and the logarithm of the number of candidates."""
    errors, effect = (float(np.clip(value, -10.0, 10.0)) for value in (evidence.standard_errors, evidence.effect))
    return np.array([errors, effect, math.log(max(1, evidence.num_candidates))])


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        return f"{'.'.join(map(str, fault['loc'])) or 'the file'}: {fault['msg']}"
    return str(error)
