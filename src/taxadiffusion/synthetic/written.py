"""The accepted pictures as others read them: an image folder, or webdataset's shards, with manifest, card, licence."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from taxadiffusion import __version__
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import DataError, SettingsError
from taxadiffusion.files import whole
from taxadiffusion.pictures.png import DIGITAL_SOURCE_TYPE, SOURCE
from taxadiffusion.pictures.recipe import SHARED, TABLE
from taxadiffusion.sharing.generated_set import read_generated, set_card
from taxadiffusion.sharing.photographs import UNSTATED
from taxadiffusion.synthetic.accept import REASONS
from taxadiffusion.synthetic.making import CANDIDATES, Candidate
from taxadiffusion.synthetic.plan import Plan

PICTURES, SHARDS = "pictures", "shards"
MANIFEST, VERDICTS = "manifest.json", "verdicts.csv"
PER_SHARD = 1000

Layout = Literal["folder", "webdataset"]


def require_layout(layout: Layout) -> None:
    """Raises `SettingsError` where shards are asked for and webdataset is not installed."""
    if layout == "webdataset":
        _webdataset()


def write_set(
    out: Path,
    plan: Plan,
    candidates: Sequence[Candidate],
    dataset: PreparedDataset,
    *,
    layout: Layout,
    licence: str,
    accepted_by: Mapping[str, Any],
) -> dict[str, Any]:
    """Write what was accepted of `out/candidates` as `out/pictures` or `out/shards`, and the manifest, which is given
    back. Every candidate has a row in `verdicts.csv`: accepted, or the reason against it.

    The pictures carry their recipe and the mark "synthetic", as `generate` wrote them; in a shard a JSON beside each
    does too. Raises `DataError` where nothing was accepted.
    """
    accepted = [one for one in candidates if one.reason is None]
    _write_verdicts(out, candidates)
    manifest = _manifest(out, plan, candidates, dataset, licence, accepted_by)
    if not accepted:
        raise DataError(
            f"{out}: of {len(candidates)} pictures none is accepted ({_words(manifest['refused'])}); {VERDICTS} says "
            "which for what. Accept by less (--accept), draw more (--tries), or train the model further"
        )
    for other in (PICTURES, SHARDS):
        shutil.rmtree(out / other, ignore_errors=True)
    rows = _rows(out)
    chosen = [rows[_name(out, one)] for one in accepted]
    _write_folder(out, chosen)
    card = set_card(read_generated(out / PICTURES), repo=f"local/{out.name}", licence=licence)
    if layout == "webdataset":
        manifest["shards"] = _write_shards(out, chosen, [one.taxon for one in plan.wanted if one.pictures])
        shutil.rmtree(out / PICTURES)
    _write(out / "README.md", card)
    _write(out / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


def _manifest(
    out: Path,
    plan: Plan,
    candidates: Sequence[Candidate],
    dataset: PreparedDataset,
    licence: str,
    accepted_by: Mapping[str, Any],
) -> dict[str, Any]:
    drawn = Counter(one.taxon for one in candidates)
    accepted = Counter(one.taxon for one in candidates if one.reason is None)
    reasons = {taxon: Counter(one.reason for one in candidates if one.taxon == taxon and one.reason) for taxon in drawn}
    licences = Counter(dataset.record(int(row)).license or UNSTATED for row in dataset.rows("train"))
    rows = list(_rows(out).values())
    first = next(iter(rows), {})
    return {
        "format": "taxadiffusion-synthetic",
        "schema_version": 1,
        "software": f"taxadiffusion {__version__}",
        "source": SOURCE,
        "digital_source_type": DIGITAL_SOURCE_TYPE,
        "licence": licence,
        "licences_of_training_photographs": dict(licences.most_common()),
        "dataset": dataset.path.name,
        "dataset_hash": dataset.content_hash,
        "plan": plan.name,
        "recipe": {key: first.get(key, "") for key in (*SHARED, "base")},
        "contexts": dict(sorted(Counter(row["context"] for row in rows if row.get("context")).items())),
        "accepted_by": dict(accepted_by),
        "wanted": plan.total,
        "drawn": len(candidates),
        "accepted": sum(accepted.values()),
        "refused": _by_reason(one.reason for one in candidates),
        "species": [
            {
                "taxon": str(one.taxon),
                "photographs": one.photographs,
                "wanted": one.pictures,
                "drawn": drawn[one.taxon],
                "accepted": accepted[one.taxon],
                "refused": _by_reason(reasons.get(one.taxon, Counter()).elements()),
            }
            for one in plan.wanted
            if one.pictures
        ],
    }


def _by_reason(reasons: Any) -> dict[str, int]:
    counts = Counter(reasons)
    return {reason: counts[reason] for reason in REASONS if counts[reason]}


def _words(refused: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in refused.items())


def _name(out: Path, one: Candidate) -> str:
    return one.path.relative_to(out / CANDIDATES).as_posix()


def _rows(out: Path) -> dict[str, dict[str, str]]:
    with (out / CANDIDATES / TABLE).open(encoding="utf-8", newline="") as stream:
        return {row["file_name"]: row for row in csv.DictReader(stream)}


def _write_verdicts(out: Path, candidates: Sequence[Candidate]) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(["file_name", "taxon", "accepted", "reason"])
    for one in candidates:
        writer.writerow([_name(out, one), one.taxon.label, "no" if one.reason else "yes", one.reason or ""])
    _write(out / VERDICTS, stream.getvalue())


def _write_folder(out: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Links to the candidates where the file system has them, else copies, and the table."""
    for row in rows:
        path = out / PICTURES / row["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(out / CANDIDATES / row["file_name"], path)
        except OSError:
            shutil.copyfile(out / CANDIDATES / row["file_name"], path)
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    _write(out / PICTURES / TABLE, stream.getvalue())


def _write_shards(out: Path, rows: Sequence[Mapping[str, str]], taxa: Sequence[Any]) -> list[dict[str, Any]]:
    """Tars of `PER_SHARD` pictures: `png`, `json` (its row) and `cls` (its species' place among `classes.txt`).

    Pictures are dealt to the shards, so that each holds all species; the same pictures give the same bytes.
    """
    writer_of = _webdataset().TarWriter
    labels = [taxon.label for taxon in taxa]
    _write(out / SHARDS / "classes.txt", "".join(f"{label}\n" for label in labels), parents=True)
    count = -(-len(rows) // PER_SHARD)
    written = []
    for number in range(count):
        path = out / SHARDS / f"pictures-{number:05d}.tar"
        mine = rows[number::count]
        with (
            whole(path) as aside,
            aside.open("wb") as stream,
            writer_of(stream, mtime=0.0, encoder=False, compress=False) as tar,
        ):
            for row in mine:
                tar.write({
                    "__key__": row["file_name"].removesuffix(".png").replace(".", "_"),
                    "cls": str(labels.index(row["scientific_name"])).encode(),
                    "json": json.dumps(row, ensure_ascii=False, sort_keys=True).encode(),
                    "png": (out / PICTURES / row["file_name"]).read_bytes(),
                })  # fmt: skip
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        written.append({"file": f"{SHARDS}/{path.name}", "pictures": len(mine), "sha256": digest})
    return written


def _webdataset() -> Any:
    try:
        return importlib.import_module("webdataset")
    except ModuleNotFoundError as error:
        raise SettingsError(
            "--layout webdataset needs webdataset, which is not installed; pip install 'taxadiffusion[data]'"
        ) from error


def _write(path: Path, text: str, *, parents: bool = False) -> None:
    if parents:
        path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as aside:
        aside.write_text(text, encoding="utf-8", newline="")
