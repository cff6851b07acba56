"""Goal 12: paths in manifests, tables, prepared sets and adapters that lead outside. None is opened."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors.torch
from PIL import Image

from taxadiffusion import checkpoint
from taxadiffusion.adapter import load_adapter, read_adapter
from taxadiffusion.checkpoint import FileEntry, Manifest
from taxadiffusion.dataset import PreparedDataset, PrepareSettings, prepare
from taxadiffusion.errors import TaxaDiffusionError
from tests.faults.harness import Plan, Recorder, folder
from tests.faults.strangers import rehash, write_good
from tests.tiny_run import tiny_base

PAYLOADS = (
    "../canary.png",
    "../../canary.png",
    "{outside}/canary.png",
    "//{outside}/canary.png",
    "file://{outside}/canary.png",
    "http://localhost/canary.png",
    "a/../../canary.png",
    "./../canary.png",
    "..\\canary.png",
    "\\\\host\\share\\canary.png",
    "C:\\canary.png",
    "%2e%2e/canary.png",
    "....//canary.png",
    "canary.png\x00.png",
    "/dev/zero",
    "/proc/self/environ",
    "~/canary.png",
    "$HOME/canary.png",
    "link.png",
    "linked/canary.png",
)

_forbidden: list[str] = []
_opened: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _forbidden and isinstance(arguments[0], str | bytes | os.PathLike):
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if any(path == place or path.startswith(place + "/") for place in _forbidden):
            _opened.append(path)


@contextmanager
def forbidden(outside: Path) -> Iterator[list[str]]:
    """Within: every opening of something outside is written down."""
    _opened.clear()
    _forbidden.extend([str(outside.resolve()), "/dev/zero", "/proc/self/environ", f"/proc/{os.getpid()}/environ"])
    try:
        yield _opened
    finally:
        _forbidden.clear()


def noise(path: Path) -> None:
    rng = np.random.default_rng(len(path.name))
    Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)


def by_manifest(payload: str, inside: Path, _: Path) -> None:
    path = inside / "run" / "step-1"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"x")
    bad = Manifest(1, 0, "order", 0, 1, {"config": "c"}, {}, {payload: FileEntry("0" * 64, 1)})
    (path / "manifest.json").write_bytes(bad.to_bytes())
    checkpoint.verify(path)


def by_card_file(payload: str, inside: Path, good: Path) -> None:
    adapter = Path(shutil.copytree(good, inside / "adapter"))
    card = json.loads((adapter / "adapter.json").read_text())
    card["files"][payload] = "0" * 64
    (adapter / "adapter.json").write_text(json.dumps(card))
    read_adapter(adapter)


def by_card_base(payload: str, inside: Path, good: Path) -> None:
    adapter = Path(shutil.copytree(good, inside / "adapter"))
    card = json.loads((adapter / "adapter.json").read_text())
    card["base"] = payload
    (adapter / "adapter.json").write_text(json.dumps(card))
    load_adapter(adapter)


def by_tensor_name(payload: str, inside: Path, good: Path) -> None:
    adapter = Path(shutil.copytree(good, inside / "adapter"))
    file = adapter / "encoders.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors[payload] = tensors.pop(sorted(tensors)[0])
    safetensors.torch.save_file(tensors, file)
    rehash(adapter)
    load_adapter(adapter, base=str(tiny_base()))


def source(inside: Path, outside: Path) -> Path:
    """A folder of two pictures, a link to a picture outside and a linked folder."""
    root = inside / "source"
    root.mkdir()
    for name in ("one.png", "two.png"):
        noise(root / name)
    (root / "link.png").symlink_to(outside / "canary.png")
    (root / "linked").symlink_to(outside)
    return root


def by_table(payload: str, inside: Path, _: Path) -> None:
    root = source(inside, inside.parent / "outside")
    rows = [{"file_name": name, "order": "O", "species": "S"} for name in ("one.png", payload)]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    report = prepare(root, inside / "prepared", PrepareSettings(max_bad_fraction=1.0))
    assert report.images == 1, f"{report.images} images were accepted"
    raise TaxaDiffusionError("quarantined")


def by_prepared_set(payload: str, inside: Path, _: Path) -> None:
    root = source(inside, inside.parent / "outside")
    rows = [{"file_name": name, "order": "O", "species": "S"} for name in ("one.png", "two.png")]
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    out = inside / "prepared"
    prepare(root, out)
    with pa.memory_map(str(out / "images.arrow")) as stream:
        table = pa.ipc.open_file(stream).read_all().combine_chunks()
    names = pa.array([payload] * len(table), pa.string())
    table = table.set_column(table.schema.get_field_index("path"), table.schema.field("path"), names)
    with pa.OSFile(str(out / "changed.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (out / "changed.arrow").replace(out / "images.arrow")
    PreparedDataset.open(out).image(0, 16)


SURFACES: dict[str, Callable[[str, Path, Path], None]] = {
    "manifest": by_manifest,
    "adapter's list of files": by_card_file,
    "adapter's base": by_card_base,
    "tensor names": by_tensor_name,
    "table of a source": by_table,
    "prepared set": by_prepared_set,
}


def run(plan: Plan) -> Recorder:
    sys.addaudithook(_audit)
    payloads = PAYLOADS if not plan.subset else (PAYLOADS[0], PAYLOADS[2], PAYLOADS[18])
    recorder = Recorder(12, len(payloads) * len(SURFACES))
    with folder() as good_place:
        good = good_place / "good"
        write_good(good, 0)
        for surface, attack in SURFACES.items():
            for number, payload in enumerate(payloads):
                with (
                    recorder.case(f"{surface}: {payload!r}", number, "refused; 0 opens outside") as case,
                    folder() as place,
                ):
                    outside, inside = place / "outside", place / "inside"
                    outside.mkdir()
                    inside.mkdir()
                    for canary in (outside / "canary.png", place / "canary.png", inside / "canary.png"):
                        noise(canary)
                    with forbidden(outside) as opened:
                        try:
                            attack(payload.format(outside=outside), inside, good)
                        except TaxaDiffusionError as error:
                            case.observed = f"refused: {error}"[:160]
                        else:
                            raise AssertionError("accepted")
                    assert not opened, opened[:3]
    return recorder
