"""Laws of sampling: diffusers' own pipeline is the reference, and a picture depends on its request alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch import Tensor, nn

from taxadiffusion.condition.methods import method_named
from taxadiffusion.denoiser import Denoiser
from taxadiffusion.errors import NonFiniteError, SettingsError
from taxadiffusion.guidance import Guidance
from taxadiffusion.names import Lineage
from taxadiffusion.sampler import Request, Sampler, seeded
from taxadiffusion.stages import plan
from tests.tiny_base import write_tiny_base
from tests.tiny_sampler import CLARKII, CORNUTUS, RANKS, make


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_base(tmp_path_factory.mktemp("base"), "v_prediction")


@pytest.fixture(scope="module")
def denoiser(base: Path) -> Denoiser:
    return make(base)


def picture(denoiser: Denoiser, request: Request, num_steps: int = 3, scheduler: str | None = None) -> np.ndarray:
    (sample,) = Sampler(denoiser, scheduler=scheduler)([request], num_steps=num_steps)  # type: ignore[arg-type]
    return sample.image.astype(int)


@pytest.mark.parametrize("scheduler", ["ddim", "dpm"])
def test_guided_sampling_equals_diffusers_pipeline(denoiser: Denoiser, base: Path, scheduler: str) -> None:
    request = Request(CLARKII, 7, Guidance(4.0, "order"))
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = denoiser.backbone.schedule.scheduler(scheduler)  # type: ignore[arg-type]
    pipeline.unet, vae = denoiser.backbone.unet, pipeline.vae
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        conditions = denoiser.conditioner([CLARKII, CLARKII.truncated("order")])
        latents = pipeline(
            prompt_embeds=conditions[:1],
            negative_prompt_embeds=conditions[1:],
            guidance_scale=4.0,
            num_inference_steps=4,
            latents=noise,
            output_type="latent",
        ).images
        pixels = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample[0]
    expected = ((pixels / 2 + 0.5).clamp(0, 1) * 255).round().int().numpy()
    assert np.abs(picture(denoiser, request, 4, scheduler) - expected).max() <= 1


def test_training_and_sampling_share_one_noise_schedule(denoiser: Denoiser) -> None:
    """METHOD, fault 1."""
    schedule = denoiser.backbone.schedule
    for name in ("dpm", "ddim", "unipc", "euler", "heun", "pndm"):
        sampling = schedule.scheduler(name).alphas_cumprod  # type: ignore[arg-type]
        torch.testing.assert_close(sampling.float(), schedule.alphas_cumprod)


def test_a_picture_alone_is_the_picture_in_a_batch(denoiser: Denoiser) -> None:
    requests = [
        Request(CLARKII, 3, Guidance(3.0)),
        Request(CORNUTUS, 5, Guidance(2.0, "order", interval=(0.2, 0.8))),
        Request(CLARKII.truncated("family"), 3),
        Request(Lineage(), 9),
        Request(CORNUTUS, 5, Guidance(2.0, "order", rank_scales=(("genus", 5.0),))),
    ]
    together = list(Sampler(denoiser)(requests, num_steps=3, batch_size=5))
    assert [sample.request for sample in together] == requests
    pairs = list(Sampler(denoiser)(requests, num_steps=3, batch_size=2))
    for sample, paired in zip(together, pairs, strict=True):
        alone = picture(denoiser, sample.request)
        assert np.abs(alone - sample.image).max() <= 2
        assert np.abs(paired.image.astype(int) - sample.image).max() <= 2


def test_seed_and_taxon_both_matter(denoiser: Denoiser) -> None:
    first = picture(denoiser, Request(CLARKII, 1))
    assert np.array_equal(first, picture(denoiser, Request(CLARKII, 1)))
    assert not np.array_equal(first, picture(denoiser, Request(CLARKII, 2)))
    assert not np.array_equal(first, picture(denoiser, Request(CORNUTUS, 1)))


def test_scale_one_and_an_empty_interval_are_no_guidance(denoiser: Denoiser) -> None:
    plain = picture(denoiser, Request(CLARKII, 1))
    assert np.array_equal(plain, picture(denoiser, Request(CLARKII, 1, Guidance(1.0, "order"))))
    never = Guidance(9.0, "order", interval=(0.0, 1e-6))
    assert np.array_equal(plain, picture(denoiser, Request(CLARKII, 1, never)))


def test_equal_rank_scales_are_one_scale(denoiser: Denoiser) -> None:
    scales = tuple((rank, 3.0) for rank in RANKS[1:])
    ranked = picture(denoiser, Request(CLARKII, 1, Guidance(1.0, "order", rank_scales=scales)))
    assert np.abs(ranked - picture(denoiser, Request(CLARKII, 1, Guidance(3.0, "order")))).max() <= 2


def test_a_mix_ends_at_its_two_lineages(denoiser: Denoiser) -> None:
    guidance = Guidance(2.0, "order")
    for fraction, lineage in ((0.0, CLARKII), (1.0, CORNUTUS)):
        mixed = picture(denoiser, Request(CLARKII, 1, guidance, CORNUTUS, fraction))
        assert np.abs(mixed - picture(denoiser, Request(lineage, 1, guidance))).max() <= 2
    with pytest.raises(SettingsError, match="differ in depth"):
        picture(denoiser, Request(CLARKII, 1, Guidance(2.0, "family"), CORNUTUS.truncated("family"), 0.5))


def test_a_condition_is_computed_once_and_base_and_target_share_a_forward(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[Lineage] = []
    sizes: list[int] = []
    encode, predict = denoiser.conditioner.encode, denoiser.backbone.forward

    def count_lineages(lineages: list[Lineage]) -> Tensor:
        encoded.extend(lineages)
        return encode(lineages)

    def count_rows(noisy: Tensor, timesteps: Tensor, condition: Tensor) -> Tensor:
        sizes.append(len(noisy))
        return predict(noisy, timesteps, condition)

    monkeypatch.setattr(denoiser.conditioner, "encode", count_lineages)
    monkeypatch.setattr(denoiser.backbone, "forward", count_rows)
    requests = [Request(taxon, seed, Guidance(2.0, "order")) for taxon in (CLARKII, CORNUTUS) for seed in range(2)]
    list(Sampler(denoiser)(requests, num_steps=3, batch_size=2))
    assert sizes == [4] * 6
    assert len(encoded) == len(set(encoded)) == 3


def test_sampling_leaves_a_training_model_as_it_was(base: Path) -> None:
    denoiser = make(base)
    denoiser.prepare_stage(plan(method_named("progressive"), RANKS, 1)[0])
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    modes = [module.training for module in denoiser.modules()]
    first = picture(denoiser, Request(CLARKII, 1))
    assert np.array_equal(first, picture(denoiser, Request(CLARKII, 1)))  # no dropout: METHOD, fault 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())
    assert [module.training for module in denoiser.modules()] == modes
    assert all(p.requires_grad for p in denoiser.prepare_stage(plan(method_named("progressive"), RANKS, 1)[0]).values())


def test_blank_and_non_finite_pictures_are_errors(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = make(base)
    with monkeypatch.context() as patch:
        patch.setattr(denoiser.backbone, "forward", lambda noisy, *_: torch.full_like(noisy, float("nan")))
        with pytest.raises(NonFiniteError, match=r"not finite: .*clarkii \(seed 4\)"):
            picture(denoiser, Request(CLARKII, 4))
    last = denoiser.backbone.vae.decoder.conv_out
    assert isinstance(last, nn.Conv2d)
    last.weight.data.zero_()
    with pytest.raises(NonFiniteError, match=r"blank: .*clarkii \(seed 4\)"):
        picture(denoiser, Request(CLARKII, 4))


@pytest.mark.parametrize("prediction", ["epsilon", "flow_prediction"])
def test_every_scheduler_ends_near_the_same_picture(tmp_path: Path, prediction: str) -> None:
    """Many steps of any deterministic solver follow one ordinary differential equation."""
    denoiser = make(write_tiny_base(tmp_path, prediction))  # type: ignore[arg-type]
    names = ("flow_euler", "dpm", "unipc") if prediction == "flow_prediction" else ("ddim", "dpm", "unipc", "euler")
    pictures = [picture(denoiser, Request(CLARKII, 1), 40, name) for name in names]
    for name, other in zip(names[1:], pictures[1:], strict=True):
        assert np.abs(other - pictures[0]).mean() < 4, name


def test_impossible_numbers_and_schedulers_are_refused(denoiser: Denoiser) -> None:
    with pytest.raises(SettingsError, match="num_steps"):
        picture(denoiser, Request(CLARKII, 1), 0)
    with pytest.raises(SettingsError, match="cannot follow v_prediction"):
        picture(denoiser, Request(CLARKII, 1), 2, "flow_euler")
    with pytest.raises(SettingsError, match="a multiple of 4 px"):
        Sampler(denoiser, size_px=18)


def test_noise_follows_from_all_bits_of_a_seed() -> None:
    """PyTorch's generator on the CPU reads the lowest 32 alone."""
    small = [seed for power in (0, 1, 31) for seed in (2**power - 1, 2**power)]
    for seed in small:
        assert torch.equal(
            torch.randn(40, generator=seeded(seed)), torch.randn(40, generator=torch.Generator().manual_seed(seed))
        )
    seeds = [5, 5 + 2**32, 5 + 2**40, 5 + 2**62, 2**63 - 1]
    draws = torch.stack([torch.randn(4000, generator=seeded(seed)) for seed in seeds])
    assert torch.equal(draws[1], torch.randn(4000, generator=seeded(seeds[1])))
    assert torch.corrcoef(draws).sub(torch.eye(len(seeds))).abs().max() < 0.08
    assert draws.mean(1).abs().max() < 0.08
    assert draws.std(1).sub(1).abs().max() < 0.05


def test_each_step_is_told_and_changes_nothing(denoiser: Denoiser) -> None:
    requests = [Request(CLARKII, 1, Guidance(3.0)), Request(CORNUTUS, 2, Guidance(3.0))]
    told: list[None] = []
    watched = Sampler(denoiser, on_step=lambda: told.append(None))(requests, num_steps=3, batch_size=1)
    alone = Sampler(denoiser)(requests, num_steps=3, batch_size=1)
    for left, right in zip(watched, alone, strict=True):
        assert np.array_equal(left.image, right.image)
    assert len(told) == 2 * 3


def test_a_sampling_that_is_ended_between_steps_leaves_the_model_as_it_was(denoiser: Denoiser) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(Sampler(denoiser, on_step=stop)([Request(CLARKII, 1)], num_steps=3))
    assert not denoiser.backbone.lora_is_merged
    assert all(torch.equal(tensor, before[name]) for name, tensor in denoiser.state_dict().items())


def test_in_bfloat16_pictures_differ_by_rounding_and_the_model_is_as_it_was(
    denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taxadiffusion.sampler.multiplies_in_bfloat16", lambda _: True)
    requests = [Request(CLARKII, 1, Guidance(4.0)), Request(CORNUTUS, 2)]
    plain = [sample.image.astype(int) for sample in Sampler(denoiser)(requests, num_steps=4)]
    rounded = [sample.image.astype(int) for sample in Sampler(denoiser, engine="bfloat16")(requests, num_steps=4)]
    for one, other in zip(plain, rounded, strict=True):
        assert 0 < np.abs(one - other).mean() < 4
    again = [sample.image.astype(int) for sample in Sampler(denoiser)(requests, num_steps=4)]
    assert all((one == other).all() for one, other in zip(plain, again, strict=True))


def test_bfloat16_is_refused_where_it_would_be_slower(denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taxadiffusion.sampler.multiplies_in_bfloat16", lambda _: False)
    with pytest.raises(SettingsError, match="engine bfloat16: cpu does not multiply"):
        next(iter(Sampler(denoiser, engine="bfloat16")([Request(CLARKII, 1)], num_steps=1)))
    assert denoiser.backbone.autocast is None
