"""Laws of sharing: what is sent is the model's own, the card says what is known, and each refusal is one sentence."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from diffusers import DiffusionPipeline
from huggingface_hub import ModelCard
from PIL import Image
from typer.testing import CliRunner

from taxadiffusion.adapter import Adapter, load_adapter, open_model, save_adapter
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.base.weights import SHIPPED_BASE
from taxadiffusion.cli import app
from taxadiffusion.dataset import PreparedDataset, prepare
from taxadiffusion.errors import CheckpointError, DataError, SettingsError, TaxaDiffusionError
from taxadiffusion.guidance import Guidance
from taxadiffusion.pictures.generate import Sampling, generate
from taxadiffusion.pictures.png import SOURCE
from taxadiffusion.sampler import Request
from taxadiffusion.sharing.hub import Destination, upload
from taxadiffusion.sharing.hub_pipeline import HubPipeline
from taxadiffusion.sharing.measured import evaluation_beside, read_measured
from taxadiffusion.sharing.not_for import NOT_FOR
from taxadiffusion.sharing.photographs import learnt_lines, photographs_learnt, taxa_known
from tests.sharing.local_hub import TOKEN, LocalHub, local_hub
from tests.tiny_adapter import SMALL, TAXA, TAXONOMY, make

TRAINED = "---\ntags: [x]\n---\n# Species of `reef`\n\nTrained on 9 images."


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    with local_hub() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # a stand-in has no Xet
        monkeypatch.setattr("huggingface_hub.hf_api.constants.ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield hub


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    path = tmp_path_factory.mktemp("run") / "adapter"
    save_adapter(path, make(base, SMALL, LoRASettings()), TAXONOMY, recipe={}, read_me=TRAINED)
    return path


@pytest.fixture(scope="module")
def adapter(model: Path, base: Path) -> Adapter:
    return load_adapter(model, base=str(base))


@pytest.fixture(scope="module")
def pictures(adapter: Adapter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    requests = [Request(taxon, seed, Guidance()) for taxon in TAXA for seed in (0, 1)]
    assert len(list(generate(adapter, requests, folder, Sampling(num_steps=1)))) == 4
    return folder


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation") / "results.json"
    figures = {"rank_accuracy": {"mean": 0.5, "low": 0.25, "high": 0.75}, "copies": {"mean": 0, "low": 0, "high": 0}}
    table = {"reef": {"family": figures, "species": figures}, "real_test_photographs": {"species": figures}}
    protocol = {"dataset": "reef-fish", "extractor": "inception"}
    path.write_text(json.dumps({"command": "taxadiffusion evaluate x", "protocol": protocol, "table1": table}))
    return path


def run(*arguments: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["push", *map(str, arguments)])
    if isinstance(result.exception, TaxaDiffusionError):
        return result.exception.exit_code, result.output + str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def front(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])  # type: ignore[no-any-return]


def test_a_model_arrives_whole_and_opens(
    hub: LocalHub, model: Path, base: Path, pictures: Path, results: Path, tmp_path: Path
) -> None:
    (model / "names.csv").write_text("taxon,name,kind\n")
    code, output = run(
        model, "me/reef", "--base", base, "--license", "cc-by-4.0", "--with-base", "--pictures", pictures,
        "--evaluation", results, "--dataset", "me/photographs", "--private",
    )  # fmt: skip
    assert code == 0, output
    assert f"{hub.url}/me/reef/commit/1" in output
    assert TOKEN not in output
    assert hub.private == {"model/me/reef": True}
    sent = hub.repositories["model/me/reef"]
    for name, data in sent.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert open_model(str(tmp_path)).card == load_adapter(model, base=str(base)).card
    assert {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()} <= set(sent)
    assert {"pipeline.py", "taxadiffusion_blocks.py", "modular_config.json"} <= set(sent)
    assert "adapter/encoders.safetensors" in hub.by_lfs
    assert sent["adapter/names.csv"] == (model / "names.csv").read_bytes()
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.datasets) == ("cc-by-4.0", ["me/photographs"])
    assert (card.data.pipeline_tag, card.data.library_name) == ("text-to-image", "diffusers")
    assert {result.metric_type for result in card.data.eval_results} == {"rank_accuracy"}
    assert {(result.dataset_config, result.metric_value) for result in card.data.eval_results} == {
        ("family", 0.5), ("species", 0.5),
    }  # fmt: skip
    widget = front(sent["README.md"].decode())["widget"]
    assert [entry["text"] for entry in widget] == [taxon.label for taxon in TAXA]  # type: ignore[attr-defined,index]
    assert all(entry["output"]["url"] in sent for entry in widget)  # type: ignore[attr-defined,index]
    for told in (*NOT_FOR, "| species | 2 | not stated |", "0.250 to 0.750", "Trained on 9 images.", "<Gallery />"):
        assert told in card.content


def test_saving_writes_what_would_be_sent_and_sends_nothing(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    asked = ("reef-fish", "me/reef", "--license", "other", "--num-pictures", "0")
    code, output = run(*asked, "--save", tmp_path / "saved")
    assert code == 0, output
    assert "encoders.safetensors" in output
    card = (tmp_path / "saved/README.md").read_text()
    assert "Nobody has measured it" in card
    assert "<Gallery />" not in card
    assert not {"widget", "model-index", "base_model"} & set(front(card))
    assert json.loads((tmp_path / "saved/model_index.json").read_text())["_class_name"] == ["pipeline", "HubPipeline"]
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "code"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path / "saved", trust_remote_code=True)
    assert isinstance(pipeline, HubPipeline)
    assert pipeline.adapter.card.base == SHIPPED_BASE
    assert not hub.repositories


def test_the_gallery_is_drawn_where_none_is_given(hub: LocalHub, model: Path, base: Path) -> None:
    code, output = run(model, "me/drawn", "--base", base, "--license", "other", "--with-base", "--num-pictures", "1")
    assert code == 0, output
    sent = hub.repositories["model/me/drawn"]
    (picture,) = (name for name in sent if name.startswith("pictures/"))
    assert front(sent["README.md"].decode())["widget"] == [{"text": "clarkii", "output": {"url": picture}}]
    with Image.open(io.BytesIO(sent[picture])) as image:
        assert json.loads(image.text["taxadiffusion"])["source"] == SOURCE  # type: ignore[attr-defined]


def test_a_base_that_nobody_has_is_sent_along_or_refused(hub: LocalHub, model: Path, base: Path) -> None:
    code, output = run(model, "me/reef", "--base", base, "--license", "other")
    assert (code, "--with-base" in output) == (2, True)
    assert not hub.repositories


# refusals of the hub


def test_each_refusal_is_one_sentence_without_the_token(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"README.md": b"x"}
    hub.forbidden.add("other")
    hub.repositories["model/me/taken"] = {}

    def told(to: Destination, kind: type[TaxaDiffusionError]) -> str:
        with pytest.raises(kind) as caught:
            upload(files, to, "m")
        assert TOKEN not in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "may not write there" in told(Destination("other/reef", "model"), SettingsError)
    assert "is there already; choose another name, or give --update" in told(
        Destination("me/taken", "model"), SettingsError
    )
    assert "is no name of a repository" in told(Destination("a/b/c", "model"), SettingsError)
    hub.refuses_commits = True
    assert "answers 500, nothing was committed" in told(Destination("me/new", "model"), CheckpointError)
    hub.refuses_commits = False
    assert upload(files, Destination("me/taken", "model", update=True), "m").endswith("/me/taken/commit/1")
    assert hub.repositories["model/me/taken"] == files
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "does not take the token" in told(Destination("me/x", "model"), SettingsError)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in told(Destination("me/x", "model"), SettingsError)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")
    assert "no token of the hub is known: set HF_TOKEN" in told(Destination("me/x", "model"), SettingsError)


@pytest.mark.usefixtures("hub")
def test_a_network_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9 cannot be reached .*nothing was committed"):
        upload({"README.md": b"x"}, Destination("me/x", "model"), "m")


# what a card says


def test_pictures_of_another_model_are_no_gallery(model: Path, base: Path, pictures: Path, tmp_path: Path) -> None:
    asked = ("me/reef", "--base", base, "--license", "other", "--with-base", "--dry-run", "--pictures")
    save_adapter(tmp_path / "other", make(base), TAXONOMY, recipe={"seed": 1}, read_me="x")
    code, output = run(tmp_path / "other", *asked, pictures)
    assert (code, "was made by another model" in output) == (3, True)
    code, output = run(model, *asked, tmp_path)
    assert (code, "no metadata.csv" in output) == (3, True)


def test_figures_are_of_the_model_that_was_named(results: Path, tmp_path: Path) -> None:
    document = json.loads(results.read_text())
    document["table1"]["second"] = document["table1"]["reef"]
    (tmp_path / "results.json").write_text(json.dumps(document))
    with pytest.raises(SettingsError, match="reef, second; say which is this model with --method"):
        read_measured(tmp_path, None)
    with pytest.raises(SettingsError, match="'third' is none of them"):
        read_measured(tmp_path, "third")
    assert [figure.rank for figure in read_measured(tmp_path, "second").figures] == ["family", "species"]
    (tmp_path / "results.json").write_text(json.dumps(document | {"models": {"reef": ["a" * 64]}}))
    assert read_measured(tmp_path, "reef", "a" * 64).figures == read_measured(tmp_path, "second", "b" * 64).figures
    with pytest.raises(DataError, match="reef was drawn by another model"):
        read_measured(tmp_path, "reef", "b" * 64)
    document["table1"]["reef"]["family"]["rank_accuracy"]["mean"] = float("nan")
    for damaged in (json.dumps(document), "[]", "{", json.dumps({"table1": {"reef": {"family": 3}}})):
        (tmp_path / "results.json").write_text(damaged)
        with pytest.raises(DataError, match=r"is no results\.json"):
            read_measured(tmp_path, "reef")


def test_an_evaluation_beside_the_run_is_found(tmp_path: Path) -> None:
    assert evaluation_beside(tmp_path / "adapter") is None
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/results.json").write_text("{}")
    assert evaluation_beside(tmp_path / "adapter") == tmp_path / "evaluation/results.json"
    assert evaluation_beside(tmp_path) == tmp_path / "evaluation/results.json"
    assert evaluation_beside(tmp_path / "other") is None


def test_it_is_sent_to_the_hub_that_the_environment_names(pictures: Path) -> None:
    """A process of its own, by HF_ENDPOINT, as a user has it."""
    with local_hub() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        command = [sys.executable, "-c", "from taxadiffusion.cli import main; main()", "push", str(pictures), "me/set"]
        done = subprocess.run(
            [*command, "--license", "cc0-1.0"], env=os.environ | own, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert f"{hub.url}/" in done.stdout
        assert TOKEN not in done.stdout + done.stderr
        assert {"README.md", "croissant.json", "metadata.csv"} < set(hub.repositories["dataset/me/set"])


def test_photographs_and_licences_are_counted_of_the_models_own_data(adapter: Adapter, tmp_path: Path) -> None:
    """Two photographs of the first species, one of the second's family: by rank and by licence."""
    rows = [(TAXA[0], "cc-by"), (TAXA[0], "cc-by"), (TAXA[1].truncated("family"), "")]
    (tmp_path / "data").mkdir()
    table = ["file_name,order,family,genus,species,license,split"]
    for number, (lineage, licence) in enumerate(rows):
        pixels = np.random.default_rng(number).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/{number}.png")
        genus = "Amphiprion" if lineage.get("species") else ""
        names = [lineage.get("order") or "", lineage.get("family") or "", genus, lineage.get("species") or ""]
        table.append(",".join([f"{number}.png", *names, licence, "train"]))
    (tmp_path / "data/metadata.csv").write_text("\n".join(table) + "\n")
    prepare(tmp_path / "data", tmp_path / "prepared", num_workers=1)
    prepared = PreparedDataset.open(tmp_path / "prepared")
    with pytest.raises(DataError, match="not those that the model was trained on"):
        photographs_learnt(adapter, prepared)
    own = replace(adapter, card=adapter.card.model_copy(update={"taxonomy_hash": prepared.taxonomy.content_hash}))
    learnt = photographs_learnt(own, prepared)
    assert [(count.rank, count.num_taxa, count.num_photographs) for count in learnt.ranks] == [
        ("order", 1, 3), ("family", 2, 3), ("species", 1, 2),
    ]  # fmt: skip
    assert (learnt.ranks[1].fewest, learnt.ranks[1].median, learnt.ranks[1].most) == (1, 1.5, 2)
    assert learnt.licences == {"cc-by": 2, "not stated": 1}
    assert "| cc-by | 2 |" in learnt_lines(learnt)
    assert [count.num_taxa for count in taxa_known(adapter).ranks] == [1, 2, 2]
    assert any("not stated here" in line for line in learnt_lines(taxa_known(adapter)))
