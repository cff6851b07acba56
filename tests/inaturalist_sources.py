"""iNaturalist sets of a few pictures."""

from __future__ import annotations

import json
from pathlib import Path


def write_json(
    path: Path, categories: list[dict[str, object]], images: list[dict[str, object]], pairs: list[tuple[object, object]]
) -> Path:
    annotations = [{"id": i, "image_id": image, "category_id": category} for i, (image, category) in enumerate(pairs)]
    value = {
        "info": {"year": 2021, "notes": ["a", {"b": []}]},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    path.write_text(json.dumps(value), encoding="utf-8")
    return path
