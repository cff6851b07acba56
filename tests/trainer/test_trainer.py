"""Laws of training: the same bits however it is cut, nothing changes but what the stage trains, nothing bad is kept."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from taxadiffusion import checkpoint
from taxadiffusion.errors import (
    CheckpointError,
    DataError,
    InterruptedByUserError,
    NonFiniteError,
    PreemptedError,
    SettingsError,
)
from taxadiffusion.names import Lineage
from taxadiffusion.trainer import events
from taxadiffusion.trainer.conditions import conditions
from taxadiffusion.trainer.history import Identity
from taxadiffusion.trainer.loader import MicroBatches, Share, micro_batches
from taxadiffusion.trainer.lock import RunLock
from taxadiffusion.trainer.optimiser import learning_rate
from taxadiffusion.trainer.order import Order, key_of, permuted
from taxadiffusion.trainer.randomness import draw, generator, stratified
from taxadiffusion.trainer.settings import OptimiserSettings
from taxadiffusion.trainer.signals import StopSignal
from tests import tiny_run
from tests.tiny_run import (
    IDENTITY,
    OracleSource,
    loop_settings,
    oracle_latents,
    state_hash,
    tiny_data,
    tiny_denoiser,
    tiny_trainer,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[events.StepDone]]:
    """State and steps of a run that nothing disturbs."""
    run_dir = tmp_path_factory.mktemp("undisturbed")
    done = steps(tiny_trainer(run_dir).run())
    return state_hash(run_dir), done


def steps(run: Iterator[events.Event]) -> list[events.StepDone]:
    return [event for event in run if isinstance(event, events.StepDone)]


def facts(done: list[events.StepDone]) -> list[tuple[int, str, float, float, float]]:
    """All that a step reports but its duration."""
    return [(e.step, e.stage, e.loss, e.grad_norm, e.learning_rate) for e in done]


# Randomness and order


def test_draws_depend_on_seed_step_and_position_alone() -> None:
    whole = draw(1, 5, np.arange(8), (2, 3))
    part = draw(1, 5, np.array([6, 2]), (2, 3))
    assert np.array_equal(part.noise, whole.noise[[6, 2]])
    assert np.array_equal(part.timestep, whole.timestep[[6, 2]])
    for other in (draw(2, 5, np.arange(8), (2, 3)), draw(1, 6, np.arange(8), (2, 3))):
        assert not np.array_equal(other.noise, whole.noise)
    held_out = draw(1, 5, np.arange(8), (2, 3), "validation")
    assert not np.array_equal(held_out.noise, whole.noise)


def test_draws_are_normal_and_uniform() -> None:
    many = [draw(3, step, np.arange(64), (4, 4)) for step in range(64)]
    noise = np.stack([d.noise for d in many])
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    for name in ("timestep", "null", "hole", "hole_rank", "variant"):
        values = np.concatenate([getattr(d, name) for d in many])
        counts, _ = np.histogram(values, bins=8, range=(0, 1))
        assert counts.min() > 400  # of 512 expected
    assert abs(float(np.corrcoef(noise[0, 0].ravel(), noise[0, 1].ravel())[0, 1])) < 0.7


def test_stratified_levels_cover_the_interval_evenly() -> None:
    levels = np.sort(stratified(1, 2, np.arange(32), 32))
    assert np.allclose(np.diff(levels), 1 / 32)
    assert len({float(stratified(1, step, np.arange(4), 4)[0]) for step in range(50)}) == 50


@settings(max_examples=60, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
def test_an_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(permuted(np.arange(size), size, key_of(seed, epoch)).tolist()) == list(range(size))


def test_epochs_and_seeds_differ_and_neighbours_part() -> None:
    orders = [permuted(np.arange(1000), 1000, key_of(seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    for order in orders:
        assert abs(float(np.corrcoef(np.arange(1000), order)[0, 1])) < 0.15
        assert 150 < np.abs(np.diff(order)).mean() < 500  # 333 for independent draws


@pytest.mark.parametrize("size", [1, 2, 7, 33])
def test_no_sample_is_missed_or_repeated_in_an_epoch(size: int) -> None:
    order = Order(4, np.arange(100, 100 + size))
    seen = np.concatenate([order.rows_at(step * 8 + np.arange(8)) for step in range(size)])
    for epoch in range(8):
        assert sorted(seen[epoch * size : (epoch + 1) * size].tolist()) == list(range(100, 100 + size))


@pytest.mark.parametrize(("power", "expected"), [(0.0, 0.9), (0.5, 0.75), (1.0, 0.5)])
def test_balance_draws_taxa_by_the_power_of_their_frequency(power: float, expected: float) -> None:
    taxon_ids = np.array([0] * 90 + [1] * 10, dtype=np.int32)
    order = Order.balanced(1, np.arange(100), taxon_ids, power)
    drawn = order.rows_at(np.arange(400))
    assert abs(float((drawn < 90).mean()) - expected) < 0.01
    per_epoch = Counter(order.rows_at(np.arange(100)).tolist())
    share = expected * 100 / 90
    assert all(np.floor(share) <= per_epoch[row] <= np.ceil(share) for row in range(90))


def test_no_images_is_an_error() -> None:
    with pytest.raises(DataError, match="no image to train on"):
        Order(0, np.array([], dtype=np.int64))


# Batches


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_processes_share_the_global_batch(num_processes: int) -> None:
    shares = [Share.of(16, 2, index, num_processes) for index in range(num_processes)]
    positions = [share.positions(k).tolist() for share in shares for k in range(share.accumulation)]
    assert sorted(np.concatenate(positions).tolist()) == list(range(16))


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"batch_size = 10 .* \(4\) × processes \(1\)"):
        Share.of(10, 4, 0, 1)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_latents_belong_to_their_rows_and_taxa(num_workers: int) -> None:
    """Oracle data: every latent spells its row, taxon and variant."""
    order = Order.balanced(3, np.arange(40), tiny_run.TAXON_IDS[:40], 0.5)
    dataset = MicroBatches(OracleSource(), order, Share.of(8, 4, 0, 1))
    variants = Counter()
    for batch in micro_batches(dataset, 10, 60, num_workers):
        spelt = (batch.latents[:, 0, 0, :3].numpy() * 64).round()
        assert np.array_equal(spelt[:, 0], batch.rows)
        assert np.array_equal(spelt[:, 1], tiny_run.TAXON_IDS[batch.rows])
        assert np.array_equal(batch.latents.numpy(), oracle_latents(batch.rows, spelt[:, 2]))
        assert torch.equal(batch.noise, torch.from_numpy(draw(3, batch.step, batch.positions, (4, 8, 8)).noise))
        variants.update(spelt[:, 2].tolist())
    assert 60 < variants[0] < 140
    assert variants[0] + variants[1] == 200


def test_loader_processes_never_run_the_callers_script(tmp_path: Path) -> None:
    script = f"""
        from pathlib import Path
        with Path({str(tmp_path / "runs")!r}).open("a") as runs:
            runs.write("run\\n")
        import numpy as np
        from taxadiffusion.trainer.loader import MicroBatches, Share, micro_batches
        from taxadiffusion.trainer.order import Order
        class Source:
            num_variants, latent_shape = 1, (1, 1, 1)
            def read(self, rows, variants):
                return np.zeros((len(rows), 1, 1, 1), np.float32), np.ones(len(rows), bool)
        dataset = MicroBatches(Source(), Order.balanced(3, np.arange(8), np.zeros(8, int), 0.0), Share.of(4, 4, 0, 1))
        print([batch.step for batch in micro_batches(dataset, 0, 3, 2)])
    """
    (tmp_path / "run.py").write_text(textwrap.dedent(script))
    run = subprocess.run(
        [sys.executable, tmp_path / "run.py"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "[0, 1, 2]\n", "")
    assert (tmp_path / "runs").read_text() == "run\n"


class DeadlySource(OracleSource):
    """Ends the loader process that reads it."""

    def read(self, rows: np.ndarray, variants: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return os._exit(9) if multiprocessing.parent_process() else super().read(rows, variants)


def test_a_loader_process_that_ends_is_one_error(tmp_path: Path) -> None:
    chosen = loop_settings(num_workers=1, validation={"every_steps": 0})
    with pytest.raises(SettingsError, match=r"DataLoader worker .*: is the machine short of memory"):
        list(tiny_trainer(tmp_path, source=DeadlySource(), settings=chosen).run())


def test_loader_processes_that_cannot_start_are_one_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    dataset = MicroBatches(OracleSource(), Order.balanced(3, np.arange(8), np.zeros(8, int), 0.0), Share.of(4, 4, 0, 1))
    with pytest.raises(SettingsError, match=r"2 loader processes cannot be started .*lower training.num_workers"):
        micro_batches(dataset, 0, 3, 2)


def test_100_000_draws_have_their_own_labels() -> None:
    """Shuffled and balanced, by 0 and 2 workers, one process and two, from the start and resumed: 0 mismatches."""
    order = Order.balanced(11, np.arange(40), tiny_run.TAXON_IDS[:40], 0.5)
    num_draws = 0
    for num_processes, num_workers, start in ((1, 0, 0), (1, 2, 37), (2, 0, 911), (2, 2, 0)):
        steps_each = 25_000 // 500
        for index in range(num_processes):
            dataset = MicroBatches(OracleSource(), order, Share.of(500, 250, index, num_processes))
            accumulation = dataset.share.accumulation
            stop = (start + steps_each) * accumulation
            for batch in micro_batches(dataset, start * accumulation, stop, num_workers):
                spelt = (batch.latents[:, 0, 0, :2].numpy() * 64).round()
                assert np.array_equal(spelt[:, 0], batch.rows)
                assert np.array_equal(spelt[:, 1], tiny_run.TAXON_IDS[batch.rows])
                assert np.array_equal(batch.rows, order.rows_at(batch.step * 500 + batch.positions))
                num_draws += len(batch.rows)
    assert num_draws == 100_000


# Conditions

CLOWNFISH = Lineage.of({"order": "O", "family": "F", "genus": "Amphiprion", "species": "clarkii"})


def test_conditions_are_cut_holed_or_null_in_the_stated_shares() -> None:
    for finest in CLOWNFISH.ranks:
        seen: Counter[Lineage] = Counter()
        for step in range(400):
            draws = draw(0, step, np.arange(32), (1,))
            seen.update(
                conditions([CLOWNFISH] * 32, finest, draws, condition_dropout=0.1, rank_dropout=5 / 21, truncation=0)
            )
        total = sum(seen.values())
        cut = CLOWNFISH.truncated(finest)
        assert set(seen) == {Lineage(), cut, *(cut.without(rank) for rank in cut.ranks)}
        assert len(set(seen)) == 2 + len(cut.ranks)  # a hole at the stage's own rank is no truncation
        assert abs(seen[Lineage()] / total - 0.1) < 0.01
        for rank in cut.ranks:
            assert abs(seen[cut.without(rank)] / total - 0.9 * 5 / 21 / len(cut.ranks)) < 0.012


def test_a_sample_without_a_name_at_these_ranks_draws_no_hole() -> None:
    draws = draw(0, 0, np.arange(8), (1,))
    nameless = CLOWNFISH.only(["species"])
    assert conditions([nameless] * 8, "family", draws, condition_dropout=0, rank_dropout=1, truncation=0) == (
        (Lineage(),) * 8
    )


def test_without_dropout_the_condition_is_the_truncation() -> None:
    draws = draw(0, 0, np.arange(4), (1,))
    for rank in CLOWNFISH.ranks:
        got = conditions([CLOWNFISH] * 4, rank, draws, condition_dropout=0, rank_dropout=0, truncation=0)
        assert got == (CLOWNFISH.truncated(rank),) * 4


def test_coarser_conditions_come_in_the_stated_share_and_each_as_often() -> None:
    seen: Counter[Lineage] = Counter()
    for step in range(400):
        draws = draw(0, step, np.arange(32), (1,))
        shares = {"condition_dropout": 0.1, "rank_dropout": 5 / 21, "truncation": 0.3}
        seen.update(conditions([CLOWNFISH] * 32, "genus", draws, **shares))
        coarsest = conditions([CLOWNFISH] * 32, "order", draws, **shares | {"condition_dropout": 0, "rank_dropout": 0})
        assert coarsest == (CLOWNFISH.truncated("order"),) * 32  # nothing lies above the coarsest rank
    total = sum(seen.values())
    for rank in ("order", "family"):
        assert abs(seen[CLOWNFISH.truncated(rank)] / total - 0.9 * 16 / 21 * 0.3 / 2) < 0.01
    holes = sum(seen[CLOWNFISH.truncated("genus").without(rank)] for rank in ("order", "family", "genus"))
    assert abs(holes / total - 0.9 * 5 / 21) < 0.01


# Learning rate


def test_learning_rate_is_constant_or_rises_and_falls() -> None:
    paper = OptimiserSettings()
    assert {learning_rate(paper, step, 10) for step in range(10)} == {1e-4}
    rates = [
        learning_rate(
            OptimiserSettings(learning_rate=1, schedule="cosine", warmup_steps=3, final_fraction=0.1), step, 103
        )
        for step in range(103)
    ]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert all(a > b for a, b in pairwise(rates[3:]))
    assert 0.1 < rates[-1] < 0.11


# The same bits however a run is cut


@pytest.mark.parametrize("stop_after", [1, 4, 5, 6, 14, 15])
def test_resumed_equals_undisturbed(
    tmp_path: Path, undisturbed: tuple[str, list[events.StepDone]], stop_after: int
) -> None:
    often = loop_settings(checkpoint={"every_steps": 1})
    run = tiny_trainer(tmp_path, settings=often).run()
    before = []
    for event in run:
        if isinstance(event, events.StepDone):
            before.append(event)
        if isinstance(event, events.CheckpointCommitted) and event.step == stop_after:
            break
    run.close()
    after = steps(tiny_trainer(tmp_path).run())
    assert facts(before + after) == facts(undisturbed[1])
    assert state_hash(tmp_path) == undisturbed[0]


@pytest.mark.parametrize("change", ["validation", "workers", "commits", "nothing"])
def test_watching_and_loading_do_not_touch_the_weights(
    tmp_path: Path, undisturbed: tuple[str, list[events.StepDone]], change: str
) -> None:
    changed = {
        "validation": loop_settings(validation={"every_steps": 1}, preview={"every_steps": 2}),
        "workers": loop_settings(num_workers=2),
        "commits": loop_settings(checkpoint={"every_steps": 1, "keep_last": 1}),
        "nothing": loop_settings(validation={"every_steps": 0}, checkpoint={"every_steps": 1000}),
    }[change]
    assert facts(steps(tiny_trainer(tmp_path, settings=changed).run())) == facts(undisturbed[1])
    assert state_hash(tmp_path) == undisturbed[0]


def test_accumulation_is_applied(tmp_path: Path) -> None:
    """Gradients of micro-batches add up: one pass over 8 samples and two over 4 differ by rounding alone."""
    settings = {
        size: loop_settings(training={"micro_batch_size": size}, optimiser={"learning_rate": 1e-3}) for size in (4, 8)
    }
    models = {}
    for size, chosen in settings.items():
        denoiser = tiny_run.tiny_denoiser(dropout=0.0)
        list(tiny_trainer(tmp_path / str(size), settings=chosen, denoiser=denoiser, steps=4).run())
        committed = checkpoint.latest(tmp_path / str(size))
        assert committed is not None
        models[size] = committed.tensors("model")
    assert max(float((models[4][name] - models[8][name]).abs().max()) for name in models[4]) < 1e-5


def test_finished_says_so_and_does_nothing(tmp_path: Path) -> None:
    list(tiny_trainer(tmp_path, steps=1).run())
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    again = list(tiny_trainer(tmp_path, steps=1).run())
    assert isinstance(again[-1], events.Finished)
    assert again[-1].already
    assert not [event for event in again if isinstance(event, events.StepDone)]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert (tmp_path / "adapter" / "adapter.json").exists()


def test_the_commit_that_the_last_stage_begins_from_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    for keep_weaker, expected in ((True, ["step-12", "step-11", "step-8"]), (False, ["step-12", "step-11"])):
        run_dir = tmp_path / str(keep_weaker)
        keeping = loop_settings(checkpoint={"every_steps": 1, "keep_weaker": keep_weaker})
        list(tiny_trainer(run_dir, steps=4, settings=keeping).run())
        assert [path.name for path in checkpoint.candidates(run_dir)] == expected
    assert checkpoint.verify(tmp_path / "True" / "step-8").stage == 2


# What a stage changes


@pytest.mark.parametrize("strategy", ["progressive", "all", "random"])
def test_only_what_a_stage_trains_changes(tmp_path: Path, strategy: str) -> None:
    denoiser = tiny_run.tiny_denoiser()
    base = {name: tensor.clone() for name, tensor in denoiser.backbone.unet.named_parameters() if "lora" not in name}
    trainer = tiny_trainer(tmp_path, strategy=strategy, denoiser=denoiser, steps=2)
    held: dict[str, torch.Tensor] = {}
    stage = None
    for event in trainer.run():
        if isinstance(event, events.StageStarted):
            stage = next(s for s in trainer.plan if s.name == event.stage)
            held = {name: p.detach().clone() for g in denoiser.groups().values() for name, p in g.items()}
        if isinstance(event, events.StageDone):
            assert stage is not None
            for group, parameters in denoiser.groups().items():
                for name, parameter in parameters.items():
                    if group not in stage.trains:
                        assert torch.equal(parameter, held[name]), name
            changed = [n for n, p in denoiser.groups()[stage.trains[-1]].items() if not torch.equal(p, held[n])]
            assert changed
    denoiser.backbone.unmerge_lora()
    for name, tensor in denoiser.backbone.unet.named_parameters():
        if "lora" not in name:
            assert torch.equal(tensor, base[name]), name


def test_a_stage_ends_with_how_far_apart_its_encoders_put_names(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, steps=2)
    found = [event for event in trainer.run() if isinstance(event, events.NamesCompared)]
    assert [event.stage for event in found] == [stage.name for stage in trainer.plan]
    for event, stage in zip(found, trainer.plan, strict=True):
        assert list(event.spread)[-1] == stage.rank
        assert len(event.spread) == 1 + [s.name for s in trainer.plan].index(stage.name)
        assert all(spread > 0 for spread in event.spread.values())


def test_a_random_step_trains_the_encoder_of_its_depth_alone(tmp_path: Path) -> None:
    settings = loop_settings(optimiser={"ema_decay": None, "warmup_steps": 0}, training={"condition_dropout": 0.0})
    trainer = tiny_trainer(tmp_path, strategy="random", settings=settings, steps=3)
    groups = {g: p for g, p in trainer.denoiser.groups().items() if g.startswith("encoder.")}
    before = {name: p.detach().clone() for parameters in groups.values() for name, p in parameters.items()}
    depths = set()
    for event in trainer.run():
        if isinstance(event, events.StepDone):
            changed = {g for g, ps in groups.items() if any(not torch.equal(p, before[n]) for n, p in ps.items())}
            assert len(changed) == 1
            depths |= changed
            before = {name: p.detach().clone() for parameters in groups.values() for name, p in parameters.items()}
    assert len(depths) > 1


def test_losses_are_reported_before_weighting_and_minimised_after(tmp_path: Path) -> None:
    still = loop_settings(optimiser={"learning_rate": 1e-30, "weight_decay": 0.0})
    seen: list[list[events.Event]] = []
    for gamma in (None, 0.5):
        denoiser = tiny_denoiser()
        denoiser.min_snr_gamma = gamma
        seen.append(list(tiny_trainer(tmp_path / str(gamma), denoiser=denoiser, settings=still, steps=2).run()))
    plain, weighted = seen
    for kind in (events.StepDone, events.Validated):
        losses = [[event.loss for event in one if isinstance(event, kind)] for one in seen]
        assert losses[0] == losses[1] != [], kind
    for one, other in zip(steps(iter(plain)), steps(iter(weighted)), strict=True):
        assert one.grad_norm != pytest.approx(other.grad_norm, rel=0.01)


# Bad samples and numbers


def test_an_unreadable_image_is_skipped_and_counted_and_too_many_end_the_run(tmp_path: Path) -> None:
    source = OracleSource(unreadable=(3, 17))
    lenient = loop_settings(training={"max_bad_fraction": 0.1})
    skipped = [
        event
        for event in tiny_trainer(tmp_path / "a", source=source, settings=lenient).run()
        if isinstance(event, events.SamplesSkipped)
    ]
    assert {row for event in skipped for row in event.rows} == {3, 17}
    assert skipped[-1].total == 2
    with pytest.raises(DataError, match=r"\[3, 17\]|\[3\]|\[17\]"):
        list(tiny_trainer(tmp_path / "b", source=source).run())


def test_a_sample_that_is_not_finite_refuses_the_step(tmp_path: Path) -> None:
    trainer = tiny_trainer(
        tmp_path, source=OracleSource(poisoned=(5,)), settings=loop_settings(training={"max_refused_steps": 100})
    )
    weights = {name: p for g in trainer.denoiser.groups().values() for name, p in g.items()}
    before: dict[str, torch.Tensor] = {}
    refused = []
    for event in trainer.run():
        if isinstance(event, events.StepRefused):
            refused.append(event)
            assert event.rows == (5,)
            assert all(torch.equal(weights[name], value) for name, value in before.items())
        before = {name: p.detach().clone() for name, p in weights.items()}
    assert len(refused) >= 2


def test_refused_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    source = OracleSource(poisoned=tuple(range(40)))
    with pytest.raises(NonFiniteError, match="not finite 5 times in a row"):
        list(tiny_trainer(tmp_path, source=source).run())
    assert not checkpoint.candidates(tmp_path) or checkpoint.latest(tmp_path)


# Signals, locks, changed settings


@pytest.mark.parametrize(
    ("number", "error"),
    [(signal.SIGTERM, PreemptedError), (signal.SIGUSR1, PreemptedError), (signal.SIGINT, InterruptedByUserError)],
)
def test_a_signal_commits_the_step_it_finds_and_leaves(
    tmp_path: Path, undisturbed: tuple[str, list[events.StepDone]], number: int, error: type[Exception]
) -> None:
    stop = StopSignal()
    done = []

    def run() -> None:
        for event in tiny_trainer(tmp_path, stop=stop).run():
            if isinstance(event, events.StepDone):
                done.append(event)
                if event.step == 6:
                    stop.number = number

    with pytest.raises(error, match="after committing step 7"):
        run()
    assert done[-1].step == 7
    done += steps(tiny_trainer(tmp_path).run())
    assert facts(done) == facts(undisturbed[1])


@pytest.mark.parametrize(("launched", "leaves"), [(True, False), (False, True)])
def test_under_a_launcher_the_passed_on_signal_is_no_second_one(
    monkeypatch: pytest.MonkeyPatch, launched: bool, leaves: bool
) -> None:
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if launched:
        monkeypatch.setenv("LOCAL_RANK", "0")
    left: list[int] = []
    monkeypatch.setattr("os._exit", left.append)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        stop = StopSignal()
        stop.install()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert stop.number == signal.SIGINT
    assert left == ([130] if leaves else [])


def test_one_run_a_directory(tmp_path: Path) -> None:
    lock = RunLock(tmp_path)
    with pytest.raises(CheckpointError, match="another run holds it"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        RunLock(tmp_path / "file")


def changed_identity(change: Callable[[dict[str, str], dict[str, object]], object]) -> Identity:
    hashes, values = dict(IDENTITY.hashes), dict(IDENTITY.settings)
    change(hashes, values)
    return Identity(hashes, values, "other", IDENTITY.versions)


@pytest.mark.parametrize("key", ["data", "taxonomy", "base", "seed"])
def test_a_changed_setting_or_input_is_refused_with_a_diff_unless_allowed(tmp_path: Path, key: str) -> None:
    list(islice(tiny_trainer(tmp_path, steps=1).run(), 6))
    other = changed_identity(lambda hashes, values: (values if key == "seed" else hashes).update({key: "new"}))
    with pytest.raises(SettingsError, match=rf"{key}: .* → new"):
        list(tiny_trainer(tmp_path, steps=1, identity=other).run())
    assert list(tiny_trainer(tmp_path, steps=1, identity=other, allow_change=[key]).run())


def test_another_thread_count_or_version_is_said(tmp_path: Path) -> None:
    list(islice(tiny_trainer(tmp_path, steps=1).run(), 6))
    torch.set_num_threads(2)
    other = Identity(IDENTITY.hashes, IDENTITY.settings, IDENTITY.settings_hash, {"torch": "0"})
    first = next(tiny_trainer(tmp_path, steps=1, identity=other).run())
    torch.set_num_threads(1)
    assert isinstance(first, events.Resumed)
    assert "2 CPU threads instead of 1" in first.warnings[0]
    assert "torch 0 instead of" in first.warnings[1]


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"])
def test_a_missing_piece_is_an_error_not_a_default(tmp_path: Path, file: str) -> None:
    run = tiny_trainer(tmp_path).run()
    next(event for event in run if isinstance(event, events.CheckpointCommitted))
    run.close()
    (path,) = checkpoint.candidates(tmp_path)
    manifest = checkpoint.verify(path)
    (path / file).unlink()
    rest = {name: entry for name, entry in manifest.files.items() if name != file}
    from dataclasses import replace

    (path / "manifest.json").write_bytes(replace(manifest, files=rest).to_bytes())
    with pytest.raises(CheckpointError, match=file.partition(".")[0]):
        list(tiny_trainer(tmp_path).run())


def test_data_is_what_the_tests_say() -> None:
    data = tiny_data()
    assert set(data.train_rows).isdisjoint(data.validation_rows)
    assert len(generator(0, "depth", 1).random(3)) == 3
