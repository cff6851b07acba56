"""Evaluate folders of generated images, or models, and write results, tables and report."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from taxadiffusion.adapter import find_adapter, open_model, read_card
from taxadiffusion.base.backbone import Backbone
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.dataset.shards import Shard
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.evaluation import check_ranks, evaluate, extract
from taxadiffusion.evaluate.extraction import FeatureStore
from taxadiffusion.evaluate.image_plan import ImagePlan, check_enough, generated_pictures, taxa_to_show
from taxadiffusion.evaluate.judges import JudgeSettings, Tell
from taxadiffusion.evaluate.networks import Networks
from taxadiffusion.evaluate.pick import Comparison
from taxadiffusion.evaluate.pictures import Pictures, base_of, common_side_px, generated_folder, side_px
from taxadiffusion.evaluate.planted import Planter
from taxadiffusion.evaluate.results import Results
from taxadiffusion.evaluate.traits import TraitJudge
from taxadiffusion.features import CachedExtractor, open_extractor
from taxadiffusion.features.bioclip import BioclipExtractor
from taxadiffusion.features.perceptual import PerceptualDistance
from taxadiffusion.files import user_path
from taxadiffusion.names import Rank, ordered_ranks
from taxadiffusion.pictures.generate import ALONE
from taxadiffusion.report.evaluation import evaluation_sections
from taxadiffusion.report.page import page
from taxadiffusion.report.table_files import write_tables


@dataclass(frozen=True, slots=True)
class Extractors:
    """Names and weights of the networks that look at the images; `lpips` None leaves LPIPS out.

    `features`: one or two: the first for distances too, each for a judge. `weights`: of these, in their order, as far
    as given. `clade`: the folder of a simulated clade, whose true traits are then compared with the images'.
    """

    features: Sequence[str]
    weights: Sequence[Path] = ()
    lpips: Path | None = None
    device: str = "cpu"
    clade: Path | None = None

    def open(self, cache_dir: Path) -> Networks:
        """The networks, features kept in `cache_dir`. Raises `SettingsError`."""
        if not 1 <= len(self.features) <= 2:
            raise SettingsError(f"--extractor is given {len(self.features)} times; one or two networks judge")
        if len(self.weights) > len(self.features):
            raise SettingsError("--weights is given more often than --extractor; give one for each, in their order")
        weights = (*self.weights, *(None for _ in self.features[len(self.weights) :]))
        opened = [open_extractor(name, own, self.device) for name, own in zip(self.features, weights, strict=True)]
        first, *second = (CachedExtractor(extractor, cache_dir) for extractor in opened)
        return Networks(
            features=first,
            perceptual=PerceptualDistance(self.lpips, self.device) if self.lpips else None,
            alignment=next((one for one in opened if isinstance(one, BioclipExtractor)), None),
            traits=TraitJudge.of(self.clade) if self.clade else None,
            store=FeatureStore(cache_dir / "blocks", with_data=True),
            second=second[0] if second else None,
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured, and against which photographs."""

    generated: Sequence[str]
    """Each is PATH or NAME=PATH: a folder that holds `metadata.csv`, or a model, whose images are made first. One name
    given several times is one method trained several times."""
    data: Path
    """The prepared data set."""
    images: ImagePlan
    """How models draw."""
    root: Path | None = None
    """Where the photographs are now, if they were moved."""
    ranks: Sequence[Rank] | None = None
    """None: all of the data set."""
    base: str | None = None
    """Of the models, and of the planted copies; none: the one that is recorded."""
    against: str | None = None
    """The method that the others are compared with; none: the best, picked on half of the pictures."""
    size_px: int | None = None
    """At which both sides are compared; none: the pictures' own."""


def evaluate_command(
    asked: Measured,
    out: Path,
    extractors: Extractors,
    *,
    command: str = "",
    progress: Tell = lambda _: None,
    shard: Shard = ALONE,
) -> Results | None:
    """Measure and write `results.json`, `tables.md`, `tables.tex` and `report.html` in `out`.

    Images of models are kept in `out/generated`. Of several processes (`shard`) each draws its share of the images and
    computes its share of the features; then the first measures, and the others return None.
    """
    dataset = PreparedDataset.open(asked.data, asked.root)
    wanted = ordered_ranks(asked.ranks) if asked.ranks else dataset.ranks
    check_ranks(dataset, wanted)
    entries = [(name, path, _made(path, wanted)) for name, path in map(_named, asked.generated)]
    names = [name for name, *_ in entries]
    if asked.against not in (None, *names):
        raise SettingsError(f"--against {asked.against}: is none of {', '.join(dict.fromkeys(names))}")
    size_px = asked.size_px or common_side_px((name, _side_px(path, made)) for name, path, made in entries)
    networks = extractors.open(out / "features")
    methods: dict[str, list[Pictures]] = {}
    bases: set[str | None] = set()
    for name, path, made in entries:
        if made is not None:
            pictures = made
            bases.add(base_of(path))
        else:
            progress(f"generating images of {name}")
            taxa = taxa_to_show(dataset, wanted)
            check_enough(dataset, taxa, asked.images.per_taxon)
            model = open_model(str(path), base=asked.base, device=extractors.device)
            bases.add(model.denoiser.backbone.name)
            run = out / "generated" / f"{name}-{len(methods.get(name, []))}"
            pictures = generated_pictures(model, taxa, asked.images, run, shard=shard)
        methods.setdefault(name, []).append(pictures)
    settings = JudgeSettings(ranks=tuple(wanted), size_px=size_px, seed=asked.images.seed)
    networks = replace(networks, planter=_planter(asked.base, bases, extractors.device))
    if shard.number:
        extract(dataset, methods, networks, settings, progress)
        return None
    results = evaluate(dataset, methods, networks, settings, progress, comparison=Comparison(asked.against))
    progress("writing the report")
    write_results(results, out, command=command, size_px=size_px)
    return results


def write_results(results: Results, out: Path, *, command: str, size_px: int) -> None:
    """`results.json`, `tables.md`, `tables.tex` and `report.html` in `out`."""
    out.mkdir(parents=True, exist_ok=True)
    document = {"command": command, **results.to_json()}
    (out / "results.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    write_tables(results, out)
    sections = evaluation_sections(results, command=command, size_px=size_px)
    title = f"Generated images of {results.protocol.dataset}"
    html = page(title, "Measured against real photographs, at every rank", sections)
    (out / "report.html").write_text(html, encoding="utf-8")


def command_line(arguments: Sequence[str]) -> str:
    """The command as one would type it."""
    return shlex.join(["taxadiffusion", *arguments])


def _planter(base: str | None, bases: set[str | None], device: str) -> Planter | None:
    """With the base asked for, else the one that all pictures come from; None where that is not known."""
    (only, *others) = [base] if base else bases
    return None if only is None or others else Planter(Backbone.load(only, device=device))


def _made(path: Path, ranks: Sequence[Rank]) -> Pictures | None:
    """What a folder holds; None for a model, which draws its pictures first."""
    return generated_folder(path, ranks) if (path / "metadata.csv").is_file() else None


def _side_px(path: Path, made: Pictures | None) -> int:
    return side_px(made) if made is not None else read_card(find_adapter(str(path))[0]).image_size_px


def _named(entry: str) -> tuple[str, Path]:
    name, separator, path = entry.partition("=")
    if not separator:
        name, path = Path(entry).name, entry
    if not name or not path:
        raise SettingsError(f"{entry!r}: give PATH or NAME=PATH")
    try:
        return name, user_path(path)
    except ValueError as error:
        raise SettingsError(f"{entry!r}: {error}") from error
