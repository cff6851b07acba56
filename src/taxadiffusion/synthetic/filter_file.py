"""An expert's filter: a JSON file of a logistic regression on features, fitted on judgements of pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.features import Extractor


class LearntFilter(BaseModel):
    """A picture passes where σ(Σ coefficient · (feature − mean) / scale + intercept) reaches `threshold`.

    extractor: the name of the network whose features these are. extractor_sha256, size_px: its hash, and the size of
    the pictures that it looked at, where the file says them.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    schema_version: Literal[1] = Field(alias="schema")
    extractor: str = Field(min_length=1)
    extractor_sha256: str | None = None
    size_px: int | None = None
    mean: Sequence[FiniteFloat]
    scale: Sequence[FiniteFloat]
    coefficients: Sequence[FiniteFloat]
    intercept: FiniteFloat
    threshold: float = Field(ge=0, le=1)

    @model_validator(mode="after")
    def _of_one_width(self) -> LearntFilter:
        if not len(self.mean) == len(self.scale) == len(self.coefficients) or not len(self.mean):
            raise ValueError("mean, scale and coefficients are of different lengths, or empty")
        if min(self.scale) <= 0:
            raise ValueError("every scale must be above 0")
        return self

    @property
    def content_hash(self) -> str:
        """sha256 of what it decides by."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()

    def probability(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """(M, D) → (M,) that the expert would pass each. Raises `DataError` for features of another width."""
        if features.shape[1] != len(self.mean):
            raise DataError(f"the filter is of features of width {len(self.mean)}, these have {features.shape[1]}")
        logits = (features - np.array(self.mean)) / np.array(self.scale) @ np.array(self.coefficients) + self.intercept
        return np.asarray(1 / (1 + np.exp(-logits.clip(-500, 500))))

    def accepts(self, features: NDArray[np.floating]) -> NDArray[np.bool_]:
        """(M, D) → (M,)."""
        return np.asarray(self.probability(features) >= self.threshold)


def read_filter(path: Path, extractor: Extractor, size_px: int) -> LearntFilter:
    """Raises `DataError` for a file that is none, `SettingsError` where it is of another network's features, or of
    pictures of another size."""
    try:
        found = LearntFilter.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path}: no filter can be read there ({error})") from error
    except ValidationError as error:
        fault = error.errors()[0]
        raise DataError(f"{path}: {'.'.join(map(str, fault['loc'])) or 'the filter'}: {fault['msg']}") from error
    if found.size_px not in (None, size_px):
        raise SettingsError(f"{path}: is of pictures of {found.size_px} px, and the model makes {size_px} px")
    if found.extractor != extractor.name or found.extractor_sha256 not in (None, extractor.content_hash):
        raise SettingsError(
            f"{path}: is of features by {found.extractor}, another network than this {extractor.name}; give that "
            "one as --extractor"
        )
    return found
