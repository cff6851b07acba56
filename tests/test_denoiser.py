"""Laws of the denoiser: what a stage changes, what it leaves alone, and how state is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.lora import LoRASettings
from taxadiffusion.cache import cached_states
from taxadiffusion.condition import (
    ClassEmbeddingSettings,
    ConditionerSettings,
    PromptSettings,
    TaxonAdapterSettings,
    TaxonomySettings,
)
from taxadiffusion.condition.methods import build_conditioner, method_named
from taxadiffusion.denoiser import Batch, Denoiser
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.stages import Stage, plan
from tests.tiny_base import write_tiny_base

RANKS = ("order", "family", "genus", "species")
SMALL = TaxonomySettings(num_heads=2, feed_forward=32)
TAXA = [
    Lineage.of({"order": "Perciformes", "family": family, "genus": genus, "species": species})
    for family, genus, species in (
        ("Pomacentridae", "Amphiprion", "clarkii"),
        ("Pomacentridae", "Abudefduf", "vaigiensis"),
        ("Zanclidae", "Zanclus", "cornutus"),
    )
]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        prediction: write_tiny_base(root / prediction, prediction)  # type: ignore[arg-type]
        for prediction in ("epsilon", "v_prediction", "flow_prediction")
    }


def make(
    base: Path, settings: ConditionerSettings = SMALL, *, lora: bool = True, full_unet: bool = False, **kwargs: object
) -> Denoiser:
    backbone = Backbone.load(str(base))
    if lora:
        backbone.add_lora(LoRASettings())
    if isinstance(settings, TaxonAdapterSettings):
        backbone.add_decoupled_attention(settings.num_tokens)
    conditioner = build_conditioner(settings, RANKS, backbone.text, TAXA)
    return Denoiser(backbone, conditioner, full_unet=full_unet, **kwargs)  # type: ignore[arg-type]


def make_batch(denoiser: Denoiser, lineages: list[Lineage], seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lineages), *denoiser.backbone.latent_shape)
    uniform = torch.rand(len(lineages), generator=generator)
    return Batch(
        latents=torch.randn(shape, generator=generator),
        lineages=lineages,
        noise=torch.randn(shape, generator=generator),
        timesteps=denoiser.backbone.schedule.timesteps_of(uniform),
    )


def train(denoiser: Denoiser, stage: Stage, lineages: list[Lineage], *, merge_lora: bool = False) -> None:
    optimizer = torch.optim.AdamW(denoiser.prepare_stage(stage, merge_lora=merge_lora).values(), lr=1e-2)
    for step in range(stage.num_steps):
        batch = make_batch(denoiser, [lineage.truncated(stage.rank) for lineage in lineages], step)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(step)  # dropout
            denoiser(batch).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def everything(denoiser: Denoiser) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    assert set(before) == set(after)
    return {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}


def test_each_stage_changes_its_own_parameters_and_no_other_bit(bases: dict[str, Path]) -> None:
    denoiser = make(bases["epsilon"])
    stages = plan(method_named("progressive"), RANKS, 2)
    before = everything(denoiser)
    train(denoiser, stages[0], TAXA)
    after = everything(denoiser)
    lora_or_order = {n for n in before if ".lora_" in n or n.startswith("conditioner.encoders.order.")}
    moved = changed(before, after)
    assert moved <= lora_or_order
    assert any(".lora_B." in name for name in moved)
    for stage in stages[1:]:
        before = after
        train(denoiser, stage, TAXA)
        after = everything(denoiser)
        moved = changed(before, after)
        assert moved
        assert all(name.startswith(f"conditioner.encoders.{stage.rank}.") for name in moved)


def test_merged_training_leaves_the_same_adapter_behind_and_the_base_as_it_was(bases: dict[str, Path]) -> None:
    stages = plan(method_named("progressive"), RANKS, 2)
    plain, merged = make(bases["v_prediction"]), make(bases["v_prediction"])
    base_before = everything(merged)
    for denoiser, merge in ((plain, False), (merged, True)):
        for stage in stages[:2]:
            train(denoiser, stage, TAXA, merge_lora=merge)
    assert torch.equal(
        merged.state()["lora"]["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"],
        plain.state()["lora"]["unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"],
    )
    for name, tensor in plain.state()["conditioner"].items():
        torch.testing.assert_close(merged.state()["conditioner"][name], tensor, rtol=0, atol=2e-2)
    merged.prepare_stage(stages[0])
    assert all(".lora_" in name or name.startswith("conditioner.") for name in changed(base_before, everything(merged)))


def test_the_fast_path_has_the_plain_paths_loss_and_gradients(bases: dict[str, Path], tmp_path: Path) -> None:
    """Cached name states (float16), a kept prefix and a merged LoRA, against none of them: to float16's rounding."""
    settings = TaxonomySettings(num_heads=2, feed_forward=32, dropout=0.0)
    plain, fast = make(bases["v_prediction"], settings), make(bases["v_prediction"], settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        state = {k: {n: t + 0.1 * torch.randn(t.shape) for n, t in v.items()} for k, v in plain.state().items()}
    for denoiser in (plain, fast):
        denoiser.load_state(state, "test")
    backbone = fast.backbone
    texts = fast.conditioner.texts(TAXA)
    fast.conditioner.states = cached_states(
        tmp_path, backbone.text_hash, 77, backbone.width, texts, lambda: backbone.text
    )
    stage = plan(method_named("progressive"), RANKS, 1)[3]
    batch = make_batch(plain, [*TAXA, TAXA[0], TAXA[1].without("family"), Lineage()])
    found = []
    for denoiser, merge in ((plain, False), (fast, True)):
        parameters = denoiser.prepare_stage(stage, merge_lora=merge)
        if denoiser is plain:
            denoiser.conditioner._held.clear()  # every encoder runs at every step
        losses = denoiser(batch)
        losses.mean().backward()
        found.append((losses.detach(), [parameter.grad for parameter in parameters.values()]))
    (losses, gradients), (fast_losses, fast_gradients) = found
    torch.testing.assert_close(fast_losses, losses, rtol=1e-3, atol=1e-4)
    largest = max(float(gradient.abs().max()) for gradient in gradients if gradient is not None)
    for gradient, fast_gradient in zip(gradients, fast_gradients, strict=True):
        torch.testing.assert_close(fast_gradient, gradient, rtol=2e-2, atol=2e-3 * largest)


def test_frozen_means_eval_and_only_trained_encoders_have_dropout(bases: dict[str, Path]) -> None:
    denoiser = make(bases["epsilon"])
    stages = plan(method_named("progressive"), RANKS, 1)
    denoiser.train()
    denoiser.prepare_stage(stages[2])
    training = {name.split(".")[2] for name, module in denoiser.named_modules() if module.training and name}
    assert training == {"genus"}


def test_a_frozen_prefix_gives_the_same_condition_at_every_step(bases: dict[str, Path]) -> None:
    denoiser = make(bases["epsilon"], TaxonomySettings(num_heads=2, feed_forward=32, dropout=0.5))
    denoiser.prepare_stage(plan(method_named("progressive"), RANKS, 1)[2])
    families = [lineage.truncated("family") for lineage in TAXA]
    assert torch.equal(denoiser.conditioner(families), denoiser.conditioner(families))
    assert not torch.equal(denoiser.conditioner(TAXA), denoiser.conditioner(TAXA))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "flow_prediction"])
def test_a_perfect_prediction_has_loss_zero_and_recovers_the_latents(
    bases: dict[str, Path], prediction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = make(bases[prediction])
    batch = make_batch(denoiser, TAXA)
    schedule = denoiser.backbone.schedule
    target = schedule.target(batch.latents, batch.noise, batch.timesteps)
    monkeypatch.setattr(denoiser.backbone, "forward", lambda *_: target)
    assert torch.equal(denoiser(batch), torch.zeros(3))


def test_condition_dropout_reaches_the_lora_through_the_bases_own_null(bases: dict[str, Path]) -> None:
    """METHOD, fault 2: the null of vanilla guidance is `T("")`, and training shows it to the denoiser."""
    denoiser = make(bases["epsilon"])
    parameters = denoiser.prepare_stage(plan(method_named("progressive"), RANKS, 1)[0])
    condition = denoiser.conditioner([Lineage()])
    assert torch.equal(condition, denoiser.backbone.text([""]))
    denoiser(make_batch(denoiser, [Lineage()])).sum().backward()
    lora = [parameter for name, parameter in parameters.items() if ".lora_B." in name]
    assert any(bool((parameter.grad != 0).any()) for parameter in lora if parameter.grad is not None)


def test_a_batch_without_the_stages_rank_has_gradients_of_zero(bases: dict[str, Path]) -> None:
    denoiser = make(bases["epsilon"])
    parameters = denoiser.prepare_stage(plan(method_named("progressive"), RANKS, 1)[3])
    denoiser(make_batch(denoiser, [TAXA[0].truncated("genus"), Lineage()])).sum().backward()
    assert all(p.grad is not None and not bool(p.grad.any()) for p in parameters.values())


@pytest.mark.parametrize(
    ("strategy", "settings", "lora", "full"),
    [
        ("lora", PromptSettings(), True, False),
        ("full", PromptSettings(), False, True),
        ("class_embedding", ClassEmbeddingSettings(), True, False),
        ("taxon_adapter", TaxonAdapterSettings(), False, False),
        ("all", SMALL, True, False),
    ],
)
def test_every_baseline_trains_what_it_says(
    bases: dict[str, Path], strategy: str, settings: ConditionerSettings, lora: bool, full: bool
) -> None:
    denoiser = make(bases["epsilon"], settings, lora=lora, full_unet=full)
    (stage,) = plan(method_named(strategy), RANKS, 1)  # type: ignore[arg-type]
    before = everything(denoiser)
    train(denoiser, stage, [*TAXA, Lineage()])
    moved = changed(before, everything(denoiser))
    allowed = {name for group in stage.trains for name in denoiser.groups()[group]}
    assert moved
    assert moved <= allowed


def test_random_depth_trains_one_encoder_and_the_lora(bases: dict[str, Path]) -> None:
    denoiser = make(bases["epsilon"])
    (stage,) = plan(method_named("random"), RANKS, 1)
    before = everything(denoiser)
    train(denoiser, stage.at("family"), TAXA)
    moved = changed(before, everything(denoiser))
    assert {name.split(".")[2] for name in moved if name.startswith("conditioner.")} == {"family"}
    assert any(".lora_" in name for name in moved)


def test_min_snr_weights_the_losses(bases: dict[str, Path]) -> None:
    plain, weighted = make(bases["epsilon"]), make(bases["epsilon"], min_snr_gamma=5.0)
    batch = make_batch(plain, TAXA)
    weights = plain.backbone.schedule.min_snr_weight(batch.timesteps, 5.0)
    torch.testing.assert_close(weighted.eval()(batch), plain.eval()(batch) * weights)
    with pytest.raises(SettingsError, match="min-SNR"):
        make(bases["flow_prediction"], min_snr_gamma=5.0)


def test_state_goes_round_and_a_wrong_one_changes_nothing(bases: dict[str, Path]) -> None:
    trained, fresh = make(bases["epsilon"]), make(bases["epsilon"])
    train(trained, plan(method_named("all"), RANKS, 1)[0], TAXA)
    state = trained.state()
    fresh.load_state(state, "round trip")
    assert not changed(everything(trained), everything(fresh))
    before = everything(fresh)
    name = "encoders.species.layers.0.linear1.weight"
    wrong_states = {
        "missing": {**state, "conditioner": {k: v for k, v in state["conditioner"].items() if k != name}},
        "unknown": {**state, "conditioner": state["conditioner"] | {"extra": torch.zeros(1)}},
        "has shape": {**state, "conditioner": state["conditioner"] | {name: torch.zeros(3)}},
        "not finite": {
            **state,
            "conditioner": state["conditioner"] | {name: torch.full_like(state["conditioner"][name], float("nan"))},
        },
        "consists of": {"conditioner": state["conditioner"]},
        "this model consists of": state | {"unet": {"extra": torch.zeros(1)}},
    }
    for message, wrong in wrong_states.items():
        altered = {section: {k: v + 1 for k, v in tensors.items()} for section, tensors in wrong.items()}
        with pytest.raises(CheckpointError, match=message):
            fresh.load_state(altered, "wrong")
        assert not changed(before, everything(fresh))


def test_a_wrong_lora_leaves_the_conditioner_as_it_was_too(bases: dict[str, Path]) -> None:
    """All sections are looked at before any is written, whichever comes first."""
    denoiser = make(bases["epsilon"])
    state, before = denoiser.state(), everything(denoiser)
    for wrong in state:
        name = next(iter(state[wrong]))
        altered = {section: {k: v + 1 for k, v in tensors.items()} for section, tensors in state.items()}
        altered[wrong][name] = torch.zeros(3)
        with pytest.raises(CheckpointError, match=rf"wrong \({wrong}\)"):
            denoiser.load_state(altered, "wrong")
        assert not changed(before, everything(denoiser))


def test_a_stage_for_another_model_is_refused(bases: dict[str, Path]) -> None:
    denoiser = make(bases["epsilon"], lora=False)
    with pytest.raises(SettingsError, match="'lora', which this model lacks"):
        denoiser.prepare_stage(plan(method_named("progressive"), RANKS, 1)[0])


def test_a_base_in_half_precision_is_never_trained_whole(bases: dict[str, Path]) -> None:
    half = Backbone.load(str(bases["epsilon"]), dtype=torch.bfloat16)
    conditioner = build_conditioner(PromptSettings(), RANKS, half.text, TAXA)
    with pytest.raises(SettingsError, match=r"needs the base in float32, it was loaded in torch\.bfloat16"):
        Denoiser(half, conditioner, full_unet=True)
    assert not Denoiser(half, conditioner).full_unet
