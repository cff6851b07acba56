"""From pictures to a filter and to trust, as it is typed, on a random model."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.adapter import save_adapter
from taxadiffusion.cli import app
from taxadiffusion.dataset import prepare
from taxadiffusion.errors import TaxaDiffusionError
from taxadiffusion.evaluate.filter import Filter
from taxadiffusion.evaluate.judgements import COLUMNS, sha256_of_file
from taxadiffusion.names import Lineage
from taxadiffusion.pictures.trusted import TRUSTED, Trusted
from tests.taxa import taxonomy_of
from tests.tiny_adapter import make

RANKS = ("order", "family", "genus", "species")
TAXA = [
    Lineage.of({"order": "Perciformes", "family": family, "genus": genus, "species": epithet})
    for family, genus, epithet in (("Pomacentridae", "Amphiprion", "clarkii"), ("Zanclidae", "Zanclus", "cornutus"))
]
NUM_EACH = 12


def typed(*words: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(result.exception, TaxaDiffusionError):
        return result.exception.exit_code, result.output + str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def write_network(path: Path) -> Path:
    """Features: the mean of each channel."""
    onnx = pytest.importorskip("onnx", reason="needs onnx, which is not installed")
    make_tensor = onnx.helper.make_tensor_value_info
    images = make_tensor("images", onnx.TensorProto.FLOAT, ["B", 3, "H", "W"])
    features = make_tensor("features", onnx.TensorProto.FLOAT, ["B", 3])
    mean = onnx.helper.make_node("ReduceMean", ["images"], ["features"], axes=[2, 3], keepdims=0)
    graph = onnx.helper.make_graph([mean], "means", [images], [features])
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def model(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, taxonomy = tmp_path_factory.mktemp("model") / "adapter", taxonomy_of(TAXA, RANKS)
    denoiser = make(base, ranks=RANKS, taxonomy=taxonomy)
    save_adapter(path, denoiser, taxonomy, recipe={}, read_me="", image_size_px=16)
    return path


@pytest.fixture(scope="module")
def drawn(model: Path, base: Path) -> Path:
    out = model.parent / "drawn"
    code, said = typed(
        "generate",
        model,
        "--all-species",
        "-n",
        NUM_EACH,
        "--out",
        out,
        "--steps",
        1,
        "--base",
        base,
        "--device",
        "cpu",
    )
    assert code == 0, said
    return out


@pytest.fixture(scope="module")
def network(model: Path) -> str:
    return f"onnx:{write_network(model.parent / 'means.onnx')}"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_filter_is_learnt_and_pictures_are_drawn_until_they_pass(
    model: Path, drawn: Path, network: str, base: Path, tmp_path: Path
) -> None:
    rows = rows_of(drawn)
    levels = [np.asarray(Image.open(drawn / row["file_name"])).mean() for row in rows]
    with (tmp_path / "judgements.csv").open("w", newline="") as stream:
        table = csv.DictWriter(stream, COLUMNS, restval="pass")
        table.writeheader()
        for row, level in zip(rows, levels, strict=True):
            verdict = "pass" if level > np.median(levels) else "fail"
            name = row["file_name"]
            table.writerow({"file": name, "sha256": sha256_of_file(drawn / name), "taxon": "", "verdict": verdict})
    learnt = tmp_path / "filter.json"
    how = ["--extractor", network, "--device", "cpu"]
    learn = ["--learn", tmp_path / "judgements.csv", "--out", learnt]
    code, said = typed("review", drawn, *learn, *how)
    assert code == 0, said
    assert "12 pictures passed, 12 did not, 0 left undecided" in said
    assert Filter.read(learnt).agreement.share > 0.7
    assert Filter.read(learnt).size_px == 16, "the pictures' own size, which `augment` looks at too"
    out = tmp_path / "accepted"
    ours = ["-n", 2, "--steps", 1, "--base", base, "--device", "cpu", "--out", out]
    code, said = typed("generate", model, "--all-species", *ours, "--accept", learnt, "--extractor", network)
    assert code == 0, said
    accepted = rows_of(out)
    assert f"{len(accepted)} pictures accepted" in said
    assert 1 <= len(accepted) <= 4
    passed = [np.asarray(Image.open(out / row["file_name"])).mean() for row in accepted]
    assert min(passed) > np.quantile(levels, 0.25)
    assert len(rows_of(tmp_path / "accepted-candidates")) >= len(accepted)
    code, said = typed("generate", model, "--all-species", *ours, "--accept", learnt)
    assert (code, "give it with --extractor onnx:FILE" in said) == (2, True)


def test_trust_is_measured_told_and_backed_off_to(
    model: Path, drawn: Path, network: str, base: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    rng = np.random.default_rng(0)
    with (source / "metadata.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["file_name", *RANKS, "split"])
        for number in range(24):
            taxon = TAXA[number % 2]
            level = 230 if number % 2 else 30
            pixels = rng.integers(level - 20, level + 20, (16, 16, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(source / f"{number}.png")
            table.writerow([f"{number}.png", *(taxon.get(rank) for rank in RANKS), "train"])
    prepare(source, tmp_path / "prepared")
    how = ["--extractor", network, "--device", "cpu"]
    code, said = typed("trust", model, drawn, "--data", tmp_path / "prepared", *how)
    assert code == 0, said
    assert "trusted at 90%: 2 to none" in said, "two taxa promise nothing at an error of 10 %"
    found = Trusted.read(model / TRUSTED)
    assert {Lineage.of(one.names) for one in found.taxa} == set(TAXA)
    assert all((one.num_scored, one.num_held_out) == (6, 6) for one in found.taxa)
    ours = ["-n", 1, "--steps", 1, "--base", base, "--device", "cpu"]
    label = TAXA[0].label
    code, said = typed("generate", model, label, *ours, "--out", tmp_path / "told")
    assert (code, f"{label}: trusted to no rank at 90%" in said) == (0, True)
    code, said = typed("generate", model, label, *ours, "--out", tmp_path / "refused", "--trusted", 0.9)
    assert (code, "trusted at no rank at 90%" in said) == (3, True)
    for taxon, rank in found.depths(0.5).items():
        out = tmp_path / taxon.label
        code, said = typed("generate", model, taxon.label, *ours, "--out", out, "--trusted", 0.5)
        if rank is None:
            assert code == 3
            continue
        (row,) = rows_of(out)
        assert row["taxon_rank"] == rank
        assert row["note"] == ("" if rank == "species" else f"{taxon.label} is trusted to {rank} at 50%")
