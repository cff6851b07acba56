"""Goal 11: adapters from strangers. Nothing runs, nothing crashes, the base stays as it is, good ones are accepted."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import random
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from taxadiffusion.adapter import load_adapter, read_adapter, save_adapter
from taxadiffusion.errors import CheckpointError, TaxaDiffusionError
from taxadiffusion.names import Lineage
from tests.faults.frozen import hashes
from tests.faults.harness import Plan, Recorder, folder
from tests.taxa import taxonomy_of
from tests.tiny_run import NUM_TAXA, RANKS, lineage_of, tiny_base, tiny_denoiser

_RUNS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "ctypes.dlopen")
_ran: list[str] = []
_watching = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event in _RUNS:
        _ran.append(f"{event} {arguments!r}"[:200])


@contextmanager
def watched_for_code() -> Iterator[list[str]]:
    """Within: everything that would run code or look for a pickle's classes is written down."""
    global _watching
    _ran.clear()
    _watching = True
    try:
        yield _ran
    finally:
        _watching = False


class Gadget:
    """Writes a canary when it is unpickled."""

    def __init__(self, canary: Path, kind: str) -> None:
        self.canary = canary
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        command = f"touch {self.canary}"
        if self.kind == "system":
            import os

            return os.system, (command,)
        if self.kind == "popen":
            import subprocess

            return subprocess.call, (["touch", str(self.canary)],)
        if self.kind == "eval":
            return eval, (f"open({str(self.canary)!r}, 'w').close()",)
        return exec, (f"open({str(self.canary)!r}, 'w').close()",)


def _zip(data: bytes, name: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def _tar(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        entry = tarfile.TarInfo("data.pkl")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


_NPY_FIELDS = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(95) + b"\n"
_NPY_HEADER = b"\x93NUMPY\x01\x00" + len(_NPY_FIELDS).to_bytes(2, "little") + _NPY_FIELDS

CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "bare": lambda data: data,
    "zip as torch.save writes it": lambda data: _zip(data, "archive/data.pkl"),
    "tar": _tar,
    "gzip": gzip.compress,
    "zip in zip": lambda data: _zip(_zip(data, "data.pkl"), "inner.zip"),
    "after a safetensors header": lambda data: (2).to_bytes(8, "little") + b"{}" + data,
    "npy": lambda data: _NPY_HEADER + data,
}  # fmt: skip
PLACES = (
    "pytorch_lora_weights.safetensors",
    "encoders.safetensors",
    "adapter.json",
    "taxonomy.json",
    "pytorch_lora_weights.bin",
    "encoders.pt",
    "x.pkl",
    "model.ckpt",
)
GADGETS = ("system", "popen", "eval", "exec")


def malicious(plan: Plan) -> Iterator[tuple[str, str, Callable[[Path], bytes]]]:
    """(label, file name, canary → content): protocols × containers × places, gadgets in turn."""
    number = 0
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        for container, wrap in CONTAINERS.items():
            for place in PLACES:
                gadget = GADGETS[number % len(GADGETS)]
                number += 1
                if plan.subset and number % 14:
                    continue

                def content(canary: Path, protocol: int = protocol, wrap: Any = wrap, gadget: str = gadget) -> bytes:
                    return bytes(wrap(pickle.dumps(Gadget(canary, gadget), protocol=protocol)))

                yield f"{gadget}, protocol {protocol}, {container}, as {place}", place, content


def write_good(path: Path, seed: int) -> None:
    """An adapter of ours with its own weights and recipe."""
    denoiser = tiny_denoiser()
    generator = torch.Generator().manual_seed(seed)
    state = {
        s: {n: torch.randn(t.shape, generator=generator) for n, t in ts.items()} for s, ts in denoiser.state().items()
    }
    denoiser.load_state(state, "test")
    denoiser.conditioner.__dict__["states"] = denoiser.backbone.text  # no part of the conditioner's own state
    taxonomy = taxonomy_of([lineage_of(taxon_id) for taxon_id in range(NUM_TAXA)], RANKS)
    save_adapter(path, denoiser, taxonomy, recipe={"seed": seed}, read_me="# A test\n")


def rehash(path: Path) -> None:
    """Make the card agree with the files, as an attacker would."""
    card = json.loads((path / "adapter.json").read_text())
    card["files"] = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in card["files"]}
    (path / "adapter.json").write_text(json.dumps(card))


def refused(path: Path) -> None:
    try:
        load_adapter(path, base=str(tiny_base()))
    except TaxaDiffusionError:
        return
    raise AssertionError("accepted")


def code(recorder: Recorder, plan: Plan, good: Path, place: Path) -> None:
    canary = place / "canary"
    for label, name, content in malicious(plan):
        with recorder.case(label, 0, "refused; 0 executions"):
            bad = Path(shutil.copytree(good, place / "bad", dirs_exist_ok=True))
            (bad / name).write_bytes(content(canary))
            if name.endswith(".safetensors"):
                rehash(bad)
            with watched_for_code() as ran:
                refused(bad)
            assert not canary.exists(), "the payload ran"
            assert not ran, ran[:3]
            shutil.rmtree(bad)


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with one thing wrong; some mutants only hold other numbers."""
    header_size = int.from_bytes(data[:8], "little")
    kind = rng.randrange(7)
    changed = bytearray(data)
    if kind == 0:  # anywhere
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # in the header
        for _ in range(rng.randrange(1, 5)):
            changed[rng.randrange(8 + header_size)] = rng.randrange(256)
    elif kind == 2:  # its length
        changed[:8] = rng.choice((0, 1, header_size + 1, len(data), 2**31, 2**63, 2**64 - 1)).to_bytes(8, "little")
    elif kind == 3:
        return data[: rng.randrange(len(data))]
    elif kind == 4:
        return data + rng.randbytes(rng.randrange(1, 64))
    elif kind == 5:
        return rng.randbytes(rng.randrange(0, 512))
    else:
        text = lying(json.loads(data[8 : 8 + header_size]), rng)
        return len(text).to_bytes(8, "little") + text + data[8 + header_size :]
    return bytes(changed)


def lying(header: dict[str, Any], rng: random.Random) -> bytes:
    """Valid JSON that lies about shapes, types and places."""
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    lie = rng.randrange(6)
    if lie == 0:
        entry["dtype"] = rng.choice(("F64", "I8", "BOOL", "X", None))
    elif lie == 1:
        entry["shape"] = rng.choice(([2**40, 2**40], [-1], [], [0], "4", [[1]]))
    elif lie == 2:
        entry["data_offsets"] = rng.choice(([0, 2**50], [5, 1], [-4, 4], [0], [1, 2]))
    elif lie == 3:
        header["../" * rng.randrange(1, 4) + name] = header.pop(name)
    elif lie == 4:
        del header[name]
    else:
        header[f"new.{rng.randrange(9)}"] = entry
    return json.dumps(header).encode()


def mutants(recorder: Recorder, plan: Plan, good: Path, place: Path) -> None:
    """Refused, or accepted as other finite numbers of the right names and shapes; never a crash, never half loaded."""
    denoiser = tiny_denoiser()
    unet = {name: p for name, p in denoiser.backbone.unet.named_parameters() if "lora_" not in name}
    base = hashes(unet)
    bad = Path(shutil.copytree(good, place / "mutant"))
    for seed in range(plan.few(5000, 200)):
        rng = random.Random(seed)
        name = rng.choice(("encoders.safetensors", "pytorch_lora_weights.safetensors"))
        with recorder.case(f"mutant of {name}", seed, "refused whole or loaded whole; base unchanged") as case:
            (bad / name).write_bytes(mutated((good / name).read_bytes(), rng))
            rehash(bad)
            before = _all_bytes(denoiser.state()) if seed % 50 == 0 else b""
            with watched_for_code() as ran:
                try:
                    denoiser.load_state(read_adapter(bad)[2], str(bad))
                    case.observed = "loaded"
                except CheckpointError as error:
                    case.observed = f"refused: {error}"[:160]
                    if before:
                        assert _all_bytes(denoiser.state()) == before, "half loaded"
            assert not ran, ran[:3]
            if seed % 50 == 0:
                assert hashes(unet) == base, "the base was changed"
            (bad / name).write_bytes((good / name).read_bytes())
    with recorder.case("the base after all mutants", 0, "0 bits changed"):
        assert hashes(unet) == base


def _all_bytes(state: dict[str, dict[str, Tensor]]) -> bytes:
    return b"".join(t.numpy().tobytes() for part in state.values() for t in part.values())


def mismatch(path: Path, rng: random.Random) -> str:
    """Make a whole, well-formed adapter belong to something else; says how."""
    card = json.loads((path / "adapter.json").read_text())
    kind = rng.choice(
        (
            "base",
            "taxonomy",
            "ranks",
            "lora rank",
            "targets",
            "conditioner",
            "missing",
            "extra",
            "nan",
            "schema",
            "field",
        )
    )
    lora = path / "pytorch_lora_weights.safetensors"
    tensors = safetensors.torch.load_file(lora)
    first = sorted(tensors)[rng.randrange(len(tensors))]
    if kind == "base":
        card["base_hash"] = rng.randbytes(32).hex()
    elif kind == "taxonomy":
        other = taxonomy_of([Lineage.of({"order": f"X{rng.randrange(9)}"})], RANKS)
        (path / "taxonomy.json").write_text(json.dumps(other.to_json()))
    elif kind == "ranks":
        card["ranks"] = rng.choice((["genus", "order"], ["kingdom"], [], ["order", "family"], ["species"]))
    elif kind == "lora rank":
        card["lora"]["rank"] = rng.choice((0, 1, 3, 4, -2, "2", 2.5))
    elif kind == "targets":
        card["lora"]["targets"] = rng.choice((["to_q"], ["nothing"], [], ["to_q", "to_k", "to_v", "ff.net.2"], "to_q"))
    elif kind == "conditioner":
        card["conditioner"].update(
            rng.choice(
                ({"num_layers": 2}, {"feed_forward": 17}, {"num_heads": 3}, {"kind": "prompt"}, {"num_layers": 10**6})
            )
        )
    elif kind in ("missing", "extra", "nan"):
        tensors = other_tensors(kind, tensors, first, rng)
    elif kind == "schema":
        card["schema_version"] = rng.choice((0, 2, "1"))
    else:
        card.update(
            rng.choice(
                ({"_target_": "os.system"}, {"auto_map": {"AutoModel": "x.py"}}, {"format": "other"}, {"files": {}})
            )
        )
    safetensors.torch.save_file(tensors, lora)
    if card["files"]:
        card["files"] = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in card["files"]}
    (path / "adapter.json").write_text(json.dumps(card))
    return kind


def other_tensors(kind: str, tensors: dict[str, Tensor], first: str, rng: random.Random) -> dict[str, Tensor]:
    if kind == "missing":
        return {name: tensor for name, tensor in tensors.items() if name != first}
    if kind == "extra":
        return {**tensors, "unet.extra.lora_A.weight": torch.zeros(2)}
    return {**tensors, first: torch.full_like(tensors[first], float(rng.choice(("nan", "inf"))))}


def mismatches(recorder: Recorder, plan: Plan, good: Path, place: Path) -> None:
    for seed in range(plan.few(200, 12)):
        rng = random.Random(f"mismatch-{seed}")
        bad = Path(shutil.copytree(good, place / "mismatch"))
        kind = mismatch(bad, rng)
        with recorder.case(f"mismatch: {kind}", seed, "refused"), watched_for_code() as ran:
            refused(bad)
            assert not ran, ran[:3]
        shutil.rmtree(bad)


def run(plan: Plan) -> Recorder:
    sys.addaudithook(_audit)
    planned = len(list(malicious(plan))) + plan.few(5000, 200) + 1 + plan.few(200, 12) + plan.few(50, 3)
    recorder = Recorder(11, planned)
    with folder() as place:
        good = place / "good"
        write_good(good, 0)
        code(recorder, plan, good, place)
        mutants(recorder, plan, good, place)
        mismatches(recorder, plan, good, place)
        for seed in range(plan.few(50, 3)):
            with recorder.case("a good one", seed, "accepted"):
                write_good(place / f"good-{seed}", seed)
                adapter = load_adapter(place / f"good-{seed}", base=str(tiny_base()))
                assert adapter.card.recipe == {"seed": seed}
    return recorder
