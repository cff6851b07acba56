"""Run experiments to the end: train, generate, measure; each part that is done already is taken as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.onnx import EngineName
from taxadiffusion.base.training_record import read_record, what_was_seen
from taxadiffusion.base.weights import resolve_base
from taxadiffusion.condition.methods import method_named
from taxadiffusion.config import OutputSettings, Settings
from taxadiffusion.dataset import PreparedDataset
from taxadiffusion.errors import SettingsError
from taxadiffusion.evaluate.evaluation import evaluate
from taxadiffusion.evaluate.image_plan import check_enough, taxa_to_show
from taxadiffusion.evaluate.judges import JudgeSettings as Measuring
from taxadiffusion.evaluate.judges import Tell
from taxadiffusion.evaluate.networks import Networks
from taxadiffusion.evaluate.pictures import Pictures, side_px, unseen_split
from taxadiffusion.evaluate.planted import Planter
from taxadiffusion.guidance import DEFAULT_SCALE, Guidance
from taxadiffusion.pictures.generate import Sampling
from taxadiffusion.run import ranks_of
from taxadiffusion.tables.earlier import left_out_words, why_none
from taxadiffusion.tables.experiments import Experiment, RareRow, Row, check_rows, comparison_of, rare_rows, rows_of
from taxadiffusion.tables.leave_out import NUM_IMAGES, species_to_leave_out, thinned, training_photographs
from taxadiffusion.tables.row_images import RowImages, told_of
from taxadiffusion.tables.search import Candidate, Choice, candidates, searched
from taxadiffusion.tables.story import TablesStory
from taxadiffusion.tables.training import Model, budget_of, model_of, seconds_to_train
from taxadiffusion.trainer.signals import StopSignal


@dataclass(frozen=True, slots=True)
class Options:
    """What is common to all experiments."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Of training; every strategy is trained once with each."""
    per_taxon: int = 10
    guidance_scale: float = DEFAULT_SCALE
    num_steps: int = 25
    size_px: int | None = None
    """At which both sides are compared; none: the pictures' own."""
    methods: tuple[str, ...] = ()
    """Only these rows of each experiment, by name; none: all."""
    engine: EngineName = "torch"
    """What predicts while images are made."""
    device: str = "cpu"
    """Where models are trained and images made: "cuda:0" and the like."""
    settings_for: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Strategy → `key=value` of its own: what suits a LoRA need not suit a whole U-Net."""
    leave_out: tuple[str, ...] = ()
    """Species to thin out; none: chosen by their number of images."""
    keep: tuple[int, ...] = NUM_IMAGES
    """Training images that a thinned species keeps, one data set for each number."""
    search: bool = False
    """Choose each strategy's learning rate and name gain first, as the configuration's `search` says."""


@dataclass(frozen=True, slots=True)
class Work:
    """The models and images that experiments need."""

    models: tuple[Model, ...]
    num_images: int
    search: tuple[Candidate, ...] = ()
    """What is tried before, to choose the models' settings."""


class Reproduction:
    """Experiments of one configuration in one directory."""

    def __init__(self, config: Settings, out: Path, options: Options) -> None:
        self.config = config
        self.out = out
        self.options = options
        self.dataset = PreparedDataset.open(config.data.path, config.data.root)
        self.ranks = ranks_of(config, self.dataset)
        self._settings_for = options.settings_for

    def plan(self, experiments: Sequence[Experiment]) -> Work:
        """What there is to train and generate, each model once; nothing is made.

        Raises `DataError` where there are no unseen photographs to compare with, or too few images are asked for.
        """
        unseen_split(self.dataset)
        check_rows(self.options.methods, experiments, self.ranks, self.options.guidance_scale)
        models: dict[Path, Model] = {}
        num_images = 0
        for experiment in experiments:
            for method in self._methods(experiment):
                taxa, needed = taxa_to_show(self.dataset, method.ranks), self._models(method)
                check_enough(self.dataset, taxa, self.options.per_taxon)
                num_images += len(taxa) * self.options.per_taxon * len(needed)
                models |= {model.run_dir: model for model in needed}
        if "rare" in experiments:
            species = species_to_leave_out(self.dataset, self.options.leave_out)
            check_enough(self.dataset, species, self.options.per_taxon)
            for row in self._rare():
                num_images += len(species) * self.options.per_taxon * len(self.options.seeds)
                models |= {model.run_dir: model for model in self._thinned_models(row)}
        return Work(tuple(models.values()), num_images, tuple(chain(*self._tries(experiments).values())))

    def _strategies(self, experiment: Experiment) -> tuple[str, ...]:
        """Those that the rows of an experiment are trained with."""
        if experiment == "rare":
            return tuple(dict.fromkeys(row.strategy for row in self._rare()))
        return tuple(dict.fromkeys(method.strategy for method in self._methods(experiment)))

    def _tries(self, experiments: Sequence[Experiment]) -> dict[str, tuple[Candidate, ...]]:
        """What a search tries for each strategy; {} without one."""
        if not self.options.search:
            return {}
        strategies = dict.fromkeys(chain(*map(self._strategies, experiments)))
        return {s: candidates(self.config, s, self.out, self.options.settings_for) for s in strategies}

    def seconds(self, work: Work) -> dict[str, float]:
        """Estimated seconds of training for each run, by measuring a few steps of each strategy on the full data.

        Tries of a search are shorter by their budget. What the search will choose is not known here, so models that it
        has trained already are not held against the configuration.
        """
        on_all_data = [
            Model(
                m.strategy,
                m.seed,
                m.settings.model_copy(update={"data": self.config.data, "output": self._measured_in(m, work)}),
            )
            for m in work.models
        ]
        seconds = seconds_to_train(on_all_data, self.options.device)
        whole = {model.strategy: seconds[model.run_dir.name] for model in work.models}
        tried = {c.model.run_dir.name: whole[c.model.strategy] * self.config.search.budget for c in work.search}
        return seconds | tried

    def _measured_in(self, model: Model, work: Work) -> OutputSettings:
        """Where a training is measured: its own directory, or with a search one that holds nothing."""
        output = model.settings.output
        if not work.search:
            return output
        return output.model_copy(update={"path": self.out / "measured" / model.run_dir.name})

    def run(
        self, experiments: Sequence[Experiment], networks: Networks, stop: StopSignal, progress: Tell
    ) -> TablesStory:
        """Do all of it. Call again after an interruption: finished trainings and images are not made again.

        A wrong name of a row or a species is an error before anything is trained.
        """
        self.plan(experiments)
        networks = replace(networks, planter=Planter(Backbone.load(self.config.base.path, device=self.options.device)))
        story = TablesStory(self.dataset, self.ranks)
        for strategy, tries in self._tries(experiments).items():
            story.choices[strategy] = self._chosen(tries, stop, progress)
        own = self.options.settings_for
        chosen = {s: (*own.get(s, ()), *choice.assignments) for s, choice in story.choices.items()}
        self._settings_for = {**own, **chosen}
        images = RowImages(
            base=self.config.base.path,
            folder=self.out / "images",
            per_taxon=self.options.per_taxon,
            sampling=Sampling(self.options.num_steps, engine=self.options.engine),
            device=self.options.device,
            stop=stop,
            progress=progress,
        )
        for experiment in experiments:
            story.models[experiment] = {
                strategy: self._model(strategy, self.options.seeds[0]) for strategy in self._strategies(experiment)
            }
            story.left_out[experiment] = self.left_out(experiment)
            methods = dict(self._rows(experiment, story, images))
            story.size_px = self.options.size_px or side_px(next(iter(methods.values()))[0])
            measuring = Measuring(ranks=self.ranks, size_px=story.size_px)
            progress(f"{experiment}: measuring")
            seen = self._photographs_seen() if experiment == "rare" else None
            comparison = comparison_of(experiment, tuple(methods), story.rare)
            story.results[experiment] = evaluate(self.dataset, methods, networks, measuring, progress, seen, comparison)
        return story

    def _chosen(self, tries: Sequence[Candidate], stop: StopSignal, progress: Tell) -> Choice:
        words = f"search: {tries[0].model.strategy}, {len(tries)} candidates"
        progress(words)
        stop.raise_if_set(words)
        return searched(tries, stop, told_of(words, progress), device=self.options.device)

    def _rows(
        self, experiment: Experiment, story: TablesStory, images: RowImages
    ) -> Iterator[tuple[str, list[Pictures]]]:
        """The images of each row, one `Pictures` a training seed."""
        if experiment == "rare":
            yield from self._rare_rows(story, images)
            return
        methods = self._methods(experiment)
        runs: dict[str, list[Pictures]] = {method.name: [] for method in methods}
        for model, mine in self._rows_of_models(methods):
            adapter = images.opened(model, f"{experiment}: {mine[0].name}, seed {model.seed}")
            for method in mine:
                taxa = taxa_to_show(self.dataset, method.ranks)
                words = f"{experiment}: {method.name}, seed {model.seed}"
                runs[method.name].append(images(adapter, model, taxa, method.guidance, words))
            self._note_training(story, mine[0].strategy, model)
        for method in methods:
            story.pictures.setdefault(method.name, runs[method.name][0])
            yield method.name, runs[method.name]

    def _rows_of_models(self, methods: Sequence[Row]) -> Iterator[tuple[Model, list[Row]]]:
        """Each model once with all the rows that it makes images for, so that it is opened once."""
        by_strategy: dict[str, list[Row]] = {}
        for method in methods:
            by_strategy.setdefault(method.strategy, []).append(method)
        for mine in by_strategy.values():
            for model in self._models(mine[0]):
                yield model, mine

    def _rare_rows(self, story: TablesStory, images: RowImages) -> Iterator[tuple[str, list[Pictures]]]:
        species = species_to_leave_out(self.dataset, self.options.leave_out)
        story.thinned = tuple(lineage.only(self.ranks) for lineage in species)
        story.base_saw = what_was_seen(read_record(resolve_base(self.config.base.path)), species)
        story.rare = self._rare()
        guidance = Guidance(self.options.guidance_scale)
        for number in self.options.keep:
            thinned(self.dataset, species, number, self.dataset.ranks, self.options.seeds[0], self._thinned(number))
        for row in story.rare:
            runs = []
            for model in self._thinned_models(row):
                words = f"rare: {row.strategy}, {row.number} images, seed {model.seed}"
                adapter = images.opened(model, words)
                runs.append(images(adapter, model, story.thinned, guidance, words))
            story.pictures[row.name] = runs[0]
            story.budgets[f"{row.strategy}, {row.number} at most"] = list(map(budget_of, self._thinned_models(row)))
            yield row.name, runs

    def _thinned(self, number: int) -> Path:
        """Where the data set lies in which each thinned species keeps `number` images."""
        return self.out / "thinned" / f"keep{number}"

    def _photographs_seen(self) -> dict[str, frozenset[str]]:
        """Row of the rare experiment → the files that its models were trained on."""
        found = {n: training_photographs(self._thinned(n), self.config.data.root) for n in self.options.keep}
        return {row.name: found[row.number] for row in self._rare()}

    def _note_training(self, story: TablesStory, strategy: str, model: Model) -> None:
        story.curves.setdefault(strategy, model.run_dir)
        noted = story.budgets.setdefault(strategy, [])
        if len(noted) < len(self.options.seeds):
            noted.append(budget_of(model))

    def left_out(self, experiment: Experiment) -> dict[str, str]:
        """Row that is asked for → why it cannot be drawn: it is guided from an earlier state, and a model has none."""
        found = {}
        for row in self._asked(experiment):
            if row.guidance.base == "weaker model":
                models = self._models(row)
                reasons = [why for model in models if (why := why_none(model, self.ranks))]
                if reasons:
                    found[row.name] = f"{len(reasons)} of {len(models)} trainings: {reasons[0]}"
        return found

    def _methods(self, experiment: Experiment) -> tuple[Row, ...]:
        """The rows that are asked for and can be drawn. Raises `SettingsError` where none can."""
        asked, left_out = self._asked(experiment), self.left_out(experiment)
        if asked and len(left_out) == len(asked):
            raise SettingsError(f"{experiment} has nothing to draw. {left_out_words(left_out)}")
        return tuple(row for row in asked if row.name not in left_out)

    def _asked(self, experiment: Experiment) -> tuple[Row, ...]:
        if experiment == "rare":
            return ()
        rows = rows_of(experiment, self.ranks, self.options.guidance_scale)
        chosen = tuple(row for row in rows if not self.options.methods or row.name in self.options.methods)
        if not chosen:
            raise SettingsError(
                f"{experiment} has no row named {' or '.join(self.options.methods)}; its rows: "
                f"{', '.join(row.name for row in rows)}"
            )
        return chosen

    def _models(self, method: Row) -> list[Model]:
        """One a seed; one in all where nothing is trained, for the same images again would feign certainty."""
        seeds = self.options.seeds if method_named(method.strategy).trains else self.options.seeds[:1]
        return [self._model(method.strategy, seed) for seed in seeds]

    def _rare(self) -> tuple[RareRow, ...]:
        return rare_rows(self.options.methods, self.options.keep)

    def _thinned_models(self, row: RareRow) -> list[Model]:
        return [self._model(row.strategy, seed, self._thinned(row.number)) for seed in self.options.seeds]

    def _model(self, strategy: str, seed: int, data: Path | None = None) -> Model:
        return model_of(self.config, strategy, seed, self.out, own=self._settings_for, data=data)
