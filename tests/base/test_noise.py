"""Laws of the noise schedule: diffusers' own numbers, for all three kinds of prediction."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, FlowMatchEulerDiscreteScheduler, HeunDiscreteScheduler

from taxadiffusion.base import noise as schedule_module
from taxadiffusion.base.noise import NoiseSchedule, SamplerName
from taxadiffusion.errors import CheckpointError, SettingsError
from tests.published_bases import PUBLISHED, Name

SCALED = {"_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0, "num_train_timesteps": 1000}


def draw() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (4, 3, 2, 2)
    return (
        torch.randn(shape, generator=generator),
        torch.randn(shape, generator=generator),
        torch.tensor([0, 250, 700, 999]),
    )


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_are_diffusers(prediction: str) -> None:
    config = SCALED | {"prediction_type": prediction}
    schedule = NoiseSchedule(config)
    reference = DDPMScheduler.from_config({k: v for k, v in config.items() if k != "_class_name"})
    latents, noise, timesteps = draw()
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, timesteps), reference.add_noise(latents, noise, timesteps)
    )
    expected = noise if prediction == "epsilon" else reference.get_velocity(latents, noise, timesteps)
    torch.testing.assert_close(schedule.target(latents, noise, timesteps), expected)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_ddim_step_to_the_end_with_the_true_target_gives_the_latents_back(prediction: str) -> None:
    schedule = NoiseSchedule(SCALED | {"prediction_type": prediction})
    latents, noise, _ = draw()
    timesteps = torch.full((4,), 500)
    scheduler = schedule.scheduler("ddim")
    assert isinstance(scheduler, DDIMScheduler)
    scheduler.set_timesteps(2)
    noisy = schedule.add_noise(latents, noise, timesteps)
    step = scheduler.step(schedule.target(latents, noise, timesteps), 500, noisy)
    torch.testing.assert_close(step.pred_original_sample, latents, rtol=1e-4, atol=1e-4)


def test_flow_noise_is_the_schedulers_and_the_target_points_from_picture_to_noise() -> None:
    schedule = NoiseSchedule(FLOW)
    reference = FlowMatchEulerDiscreteScheduler(shift=3.0)
    latents, noise, _ = draw()
    timesteps = reference.timesteps[[0, 300, 700, 999]]
    torch.testing.assert_close(
        schedule.add_noise(latents, noise, timesteps), reference.scale_noise(latents, timesteps, noise)
    )
    sigma = (timesteps / 1000)[:, None, None, None]
    noisy = schedule.add_noise(latents, noise, timesteps)
    torch.testing.assert_close(noisy - sigma * schedule.target(latents, noise, timesteps), latents)


def test_every_noise_level_is_drawn_alike_and_none_outside() -> None:
    schedule = NoiseSchedule(SCALED)
    levels = schedule.timesteps_of((torch.arange(1000) + 0.5) / 1000)
    assert levels.tolist() == list(range(1000))
    assert schedule.timesteps_of(torch.tensor([0.0, 1.0 - 2**-24])).tolist() == [0, 999]


def test_flow_levels_are_those_the_scheduler_was_made_with() -> None:
    reference = FlowMatchEulerDiscreteScheduler(shift=3.0)
    levels = NoiseSchedule(FLOW).timesteps_of(torch.arange(1000) / 1000)
    torch.testing.assert_close(levels, reference.timesteps, rtol=1e-4, atol=1e-2)
    assert float(levels.min()) > 0


def test_min_snr_weights_are_one_where_noise_dominates_epsilon() -> None:
    """Hang et al. 2023: min(SNR, γ)/SNR is 1 for SNR ≤ γ and γ/SNR above."""
    schedule = NoiseSchedule(SCALED)
    timesteps = torch.arange(1000)
    alpha = schedule.alphas_cumprod
    snr = alpha / (1 - alpha)
    weights = schedule.min_snr_weight(timesteps, 5.0)
    torch.testing.assert_close(weights[snr <= 5], torch.ones(int((snr <= 5).sum())))
    torch.testing.assert_close(weights[snr > 5], 5.0 / snr[snr > 5])
    velocity = NoiseSchedule(SCALED | {"prediction_type": "v_prediction"})
    torch.testing.assert_close(velocity.min_snr_weight(timesteps, 5.0), weights * snr / (snr + 1))
    with pytest.raises(SettingsError, match="flow"):
        NoiseSchedule(FLOW).min_snr_weight(timesteps, 5.0)


def test_zero_terminal_snr_bases_are_read_as_they_are() -> None:
    schedule = NoiseSchedule(SCALED | {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True})
    assert float(schedule.alphas_cumprod[-1]) == 0.0
    latents, noise, timesteps = draw()
    assert bool(torch.isfinite(schedule.min_snr_weight(timesteps, 5.0)).all())
    torch.testing.assert_close(schedule.add_noise(latents, noise, timesteps)[3], noise[3])


def test_silence_means_the_default_of_the_schedulers_own_class() -> None:
    """Heun's betas start at 0.00085 and end at 0.012, everybody else's at 0.0001 and 0.02."""
    silent = NoiseSchedule({"_class_name": "HeunDiscreteScheduler"})
    torch.testing.assert_close(silent.alphas_cumprod, HeunDiscreteScheduler().alphas_cumprod)
    assert (silent.num_timesteps, silent.prediction) == (1000, "epsilon")
    for name in ("heun", "dpm", "euler"):
        torch.testing.assert_close(silent.scheduler(name).alphas_cumprod, silent.alphas_cumprod)
    assert NoiseSchedule({"_class_name": "DDIMScheduler"}).scheduler("ddim").config.set_alpha_to_one
    assert NoiseSchedule({"_class_name": "FlowMatchEulerDiscreteScheduler"}).shift == 1.0


@pytest.mark.parametrize("sampler", ["dpm", "ddim", "unipc", "euler", "euler_a", "heun", "pndm"])
@pytest.mark.parametrize("name", ["sd15", "sd21"])
def test_samplers_are_set_as_diffusers_sets_them_in_place_of_the_published_one(
    name: Name, sampler: SamplerName
) -> None:
    """`CLASS.from_config(pipeline.scheduler.config)`: what the published file does not say is CLASS's own default."""
    published = PUBLISHED[name]["scheduler"]
    own = getattr(diffusers, published["_class_name"]).from_config(published)
    found = NoiseSchedule(published).scheduler(sampler)
    expected = type(found).from_config(own.config)
    private = ("_class_name", "_diffusers_version", "_use_default_values")
    assert {key: value for key, value in found.config.items() if key not in private} == {
        key: value for key, value in expected.config.items() if key in type(found)._get_init_keys(type(found))
    }


def test_an_offset_and_clipping_that_suit_pixels_are_set_right_as_the_pipeline_does() -> None:
    outdated = {"_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": True} | SCALED
    config = NoiseSchedule(outdated | {"_class_name": "DDIMScheduler"}).scheduler("ddim").config
    assert (config.steps_offset, config.clip_sample) == (1, False)


def test_a_flow_base_may_state_a_solver_with_its_own_name_for_the_shift() -> None:
    stated = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction", "flow_shift": 3.0}
    schedule = NoiseSchedule(stated | {"use_flow_sigmas": True})
    uniform = torch.arange(8) / 8
    assert torch.equal(schedule.timesteps_of(uniform), NoiseSchedule(FLOW).timesteps_of(uniform))
    for sampler in ("dpm", "unipc", "flow_euler"):
        mine, other = schedule.scheduler(sampler), NoiseSchedule(FLOW).scheduler(sampler)
        mine.set_timesteps(5)
        other.set_timesteps(5)
        assert torch.equal(mine.sigmas, other.sigmas)
    with pytest.raises(CheckpointError, match="use_flow_sigmas"):
        NoiseSchedule(stated)


def test_every_solver_of_a_flow_walks_the_line_from_noise_to_picture() -> None:
    """Its timestep is its noise level, 1,000 pure noise, whichever solver it is; those of diffusion go beyond."""
    for sampler in ("dpm", "unipc", "flow_euler"):
        solver = NoiseSchedule(FLOW).scheduler(sampler)
        solver.set_timesteps(5)
        torch.testing.assert_close(solver.sigmas[:-1], solver.timesteps.float() / 1000, atol=1e-3, rtol=0)
        assert 0.99 < solver.sigmas[0] <= 1.0


def test_a_sampler_that_would_walk_another_schedule_is_refused() -> None:
    schedule = NoiseSchedule(SCALED | {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True})
    for follows in ("ddim", "euler", "dpm"):
        assert float(schedule.scheduler(follows).alphas_cumprod[-1]) < 1e-7
    for other in ("pndm", "heun"):
        with pytest.raises(SettingsError, match="cannot follow the base's noise schedule"):
            schedule.scheduler(other)


def test_unknown_predictions_and_samplers_are_refused() -> None:
    with pytest.raises(CheckpointError, match="'sample'"):
        NoiseSchedule(SCALED | {"prediction_type": "sample"})
    with pytest.raises(SettingsError, match="choose one of"):
        NoiseSchedule(FLOW).scheduler("ddim")


def test_a_timestep_lies_in_the_schedule_where_its_noise_does() -> None:
    """0 is clean and 1 pure noise: the last of the integer levels, and sigma 1 of a flow."""
    levels, flow = NoiseSchedule(SCALED), NoiseSchedule(FLOW)
    assert [levels.noise_fraction(t) for t in (0, 333, 999)] == [0.0, pytest.approx(1 / 3), 1.0]
    assert [flow.noise_fraction(t) for t in (0.0, 250.0, 1000.0)] == [0.0, 0.25, 1.0]
    for schedule in (levels, flow):
        assert (schedule.noise_fraction(-1), schedule.noise_fraction(2000)) == (0.0, 1.0)


def test_where_another_class_is_silent_a_sampler_suits_latents() -> None:
    silent = NoiseSchedule(SCALED | {"_class_name": "EulerDiscreteScheduler"})
    assert silent.scheduler("pndm").config.skip_prk_steps
    assert not silent.scheduler("ddim").config.set_alpha_to_one
    assert silent.scheduler("dpm").config.algorithm_type == "dpmsolver++"
    assert type(silent.scheduler()) is type(silent.scheduler("dpm"))
    assert isinstance(NoiseSchedule(FLOW).scheduler(), FlowMatchEulerDiscreteScheduler)
    assert silent.scheduler("pndm").config.steps_offset == 1
    assert not silent.scheduler("ddim").config.clip_sample


def test_a_sampler_that_walks_a_little_beside_the_schedule_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    schedule = NoiseSchedule(SCALED)
    beside = schedule.scheduler("ddim")
    beside.alphas_cumprod = beside.alphas_cumprod * 1.001
    monkeypatch.setattr(schedule_module, "_made", lambda *_: beside)
    with pytest.raises(SettingsError, match="'ddim' cannot follow the base's noise schedule"):
        schedule.scheduler("ddim")


@pytest.mark.parametrize("number", [2, 4])
def test_betas_of_another_number_than_the_noise_levels_are_refused(number: int) -> None:
    config = {"_class_name": "DDIMScheduler", "num_train_timesteps": 3, "trained_betas": [0.1] * number}
    with pytest.raises(CheckpointError, match="not as many trained_betas as num_train_timesteps"):
        NoiseSchedule(config)
    assert len(NoiseSchedule(config | {"trained_betas": [0.1] * 3}).alphas_cumprod) == 3


@pytest.mark.parametrize("name", ["UNet2DConditionModel", "NoSuchScheduler", "utils"])
def test_what_is_no_scheduler_is_refused_by_name(name: str) -> None:
    with pytest.raises(CheckpointError, match=f"the scheduler '{name}', which diffusers does not have"):
        NoiseSchedule({"_class_name": name})


def test_a_scheduler_without_betas_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(CheckpointError, match="'EDMEulerScheduler' is not served: it has no beta_schedule"):
        NoiseSchedule({"_class_name": "EDMEulerScheduler"})


@pytest.mark.parametrize(
    "raised", [ValueError, TypeError, KeyError, ZeroDivisionError, AttributeError, RuntimeError, ImportError]
)
def test_whatever_a_scheduler_raises_when_it_is_made_is_one_error(
    monkeypatch: pytest.MonkeyPatch, raised: type[Exception]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise raised("no")

    monkeypatch.setattr(DDIMScheduler, "from_config", refuse)
    with pytest.raises(CheckpointError, match=r"DDIMScheduler cannot be made from the base's settings: .*no"):
        NoiseSchedule({"_class_name": "DDIMScheduler"})
    with pytest.raises(SettingsError, match=r"'ddim' cannot follow the base's settings: .*no"):
        NoiseSchedule(SCALED).scheduler("ddim")


@pytest.mark.parametrize("shift", [0, -1.0, "3", None])
def test_a_shift_that_is_no_number_above_zero_is_refused(shift: object) -> None:
    solver = {"_class_name": "DPMSolverMultistepScheduler", "prediction_type": "flow_prediction"}
    with pytest.raises(CheckpointError, match=r"has flow_shift .*, expected a number above 0"):
        NoiseSchedule(solver | {"use_flow_sigmas": True, "flow_shift": shift})
    assert NoiseSchedule(FLOW | {"shift": 0.5}).shift == 0.5


@pytest.mark.parametrize("key", ["use_dynamic_shifting", "invert_sigmas"])
def test_a_flow_whose_shift_is_not_fixed_is_refused(key: str) -> None:
    with pytest.raises(CheckpointError, match=f"with {key} is not served"):
        NoiseSchedule(FLOW | {key: True})
