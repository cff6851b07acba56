"""The noise schedule of a base, read once from its scheduler's settings: for training and for sampling alike."""

# Letters: B batch, N number of training noise levels.
from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import diffusers
import torch
from torch import Tensor

from taxadiffusion.errors import CheckpointError, SettingsError

Prediction = Literal["epsilon", "v_prediction", "flow_prediction"]
SamplerName = Literal["dpm", "ddim", "unipc", "euler", "euler_a", "heun", "pndm", "flow_euler"]

_FLOW_CLASSES = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
_SCHEDULE_KEYS = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type",
)  # fmt: skip
"""What the noise schedule is; all else in a scheduler's settings is about how it is walked."""

# What `StableDiffusionPipeline` sets, whatever a base's settings say.
_OF_LATENTS = {"steps_offset": 1, "clip_sample": False}
# Class, and what it is told where a base of another class is silent (its defaults suit pixels, not latents).
_SAMPLERS: dict[SamplerName, tuple[str, dict[str, Any]]] = {
    "dpm": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "flow_euler": ("FlowMatchEulerDiscreteScheduler", {}),
}
_FLOW_SAMPLERS: tuple[SamplerName, ...] = ("dpm", "unipc", "flow_euler")


class NoiseSchedule:
    """One noise schedule, from a base's `scheduler/scheduler_config.json` (F1: never two).

    Its numbers are those of diffusers' scheduler of these settings: where they are silent, its own class's defaults.
    `timesteps` are always what the U-Net is told: integers 0 … N−1 for ε- and v-prediction, `sigma·N` for flow.
    Raises `CheckpointError` for a scheduler that cannot be followed.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._stated = {key: value for key, value in config.items() if not key.startswith("_")}
        self._own_class, own = _own_scheduler(config)
        self.config = self._stated | own
        self.num_timesteps = int(self.config["num_train_timesteps"])
        self.prediction: Prediction = self._prediction()
        self.shift = self._flow_shift() if self.prediction == "flow_prediction" else 1.0
        if self.prediction != "flow_prediction" and len(self.alphas_cumprod) != self.num_timesteps:
            raise CheckpointError(f"scheduler {self._own_class!r} has not as many trained_betas as num_train_timesteps")
        self._alphas: dict[torch.device, Tensor] = {}

    def _prediction(self) -> Prediction:
        if self._own_class in _FLOW_CLASSES:
            return "flow_prediction"
        prediction = self.config["prediction_type"]
        if prediction not in ("epsilon", "v_prediction", "flow_prediction"):
            raise CheckpointError(
                f"scheduler {self._own_class!r} predicts {prediction!r}; known: epsilon, v_prediction, flow"
            )
        return prediction  # type: ignore[no-any-return]

    def _flow_shift(self) -> float:
        for key in ("use_dynamic_shifting", "invert_sigmas"):
            if self.config.get(key):
                raise CheckpointError(
                    f"scheduler {self._own_class!r} with {key} is not served: the shift must be fixed"
                )
        named = "shift" if self._own_class in _FLOW_CLASSES else "flow_shift"
        if named == "flow_shift" and not self.config.get("use_flow_sigmas"):
            raise CheckpointError(f"scheduler {self._own_class!r} predicts flow but has not use_flow_sigmas")
        shift = self.config[named]
        if not isinstance(shift, int | float) or not shift > 0:
            raise CheckpointError(f"scheduler {self._own_class!r} has {named} {shift!r}, expected a number above 0")
        return float(shift)

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t of ε- and v-prediction, (N,) float32, as diffusers' training scheduler computes it."""
        scheduler = _made(diffusers.DDPMScheduler, self.config)
        return scheduler.alphas_cumprod.float()  # type: ignore[no-any-return]

    def prepare(self, device: torch.device) -> None:
        """Have ready on `device` what training reads of the schedule."""
        if self.prediction != "flow_prediction":
            self._alphas_on(device)

    def _alphas_on(self, device: torch.device) -> Tensor:
        """ᾱ_t there, copied once: a copy in every step would wait for the device each time."""
        if device not in self._alphas:
            self._alphas[device] = self.alphas_cumprod.to(device)
        return self._alphas[device]

    def timesteps_of(self, uniform: Tensor) -> Tensor:
        """Noise levels for uniform numbers in [0, 1): (B,) → (B,); flow levels carry the base's shift."""
        if self.prediction != "flow_prediction":
            return (uniform * self.num_timesteps).long().clamp_(0, self.num_timesteps - 1)
        sigmas = 1.0 - uniform  # (0, 1]: pure noise is seen, a clean picture is not
        return self.shift * sigmas / (1.0 + (self.shift - 1.0) * sigmas) * self.num_timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t: `√ᾱ·x + √(1−ᾱ)·ε` (DDPM eq. 4; M3), or `(1−σ)·x + σ·ε` (rectified flow); all (B, C, H, W)."""
        signal, spread = self._coefficients(timesteps, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net learns to predict (M3): ε, `√ᾱ·ε − √(1−ᾱ)·x` (v), or `ε − x` (flow)."""
        if self.prediction == "epsilon":
            return noise
        if self.prediction == "flow_prediction":
            return noise - latents
        signal, spread = self._coefficients(timesteps, latents)
        return signal * noise - spread * latents

    def _coefficients(self, timesteps: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        if self.prediction == "flow_prediction":
            sigma = (timesteps.to(like) / self.num_timesteps)[:, None, None, None]  # (B, 1, 1, 1)
            return 1.0 - sigma, sigma
        alpha = self._alphas_on(like.device)[timesteps.long()][:, None, None, None].to(like)  # (B, 1, 1, 1)
        return alpha.sqrt(), (1.0 - alpha).sqrt()

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Loss weights `min(SNR, γ)/SNR` for ε and `min(SNR, γ)/(SNR+1)` for v (Hang et al. 2023, §3.4): (B,)."""
        if self.prediction == "flow_prediction":
            raise SettingsError("min-SNR weighting is not defined for a flow base: leave min_snr_gamma unset")
        alpha = self._alphas_on(timesteps.device)[timesteps.long()]  # (B,)
        snr = alpha / (1.0 - alpha).clamp_min(1e-12)
        below = snr if self.prediction == "epsilon" else snr + 1.0
        return snr.clamp_max(gamma) / below.clamp_min(1e-12)

    def noise_fraction(self, timestep: float) -> float:
        """Where a timestep lies in the schedule: 0 = clean, 1 = pure noise."""
        last = self.num_timesteps if self.prediction == "flow_prediction" else self.num_timesteps - 1
        return min(1.0, max(0.0, timestep / last))

    def scheduler(self, name: SamplerName | None = None) -> Any:
        """A diffusers scheduler over this schedule; by default DPM-Solver++, and Euler for a flow base.

        As `CLASS.from_config(pipeline.scheduler.config)` makes it: what the base's settings do not say is the class's
        own default, except the noise schedule itself, which is the base's. Raises `SettingsError` for an unknown name
        or one that cannot follow the base's prediction or schedule.
        """
        flow = self.prediction == "flow_prediction"
        name = name or ("flow_euler" if flow else "dpm")
        allowed = _FLOW_SAMPLERS if flow else tuple(known for known in _SAMPLERS if known != "flow_euler")
        if name not in allowed:
            raise SettingsError(f"sampler {name!r} cannot follow {self.prediction}; choose one of {', '.join(allowed)}")
        class_name, silent = _SAMPLERS[name]
        if class_name == self._own_class:
            silent = {}
        schedule = {key: self.config[key] for key in _SCHEDULE_KEYS if key in self.config}
        settings = silent | self._stated | schedule | _OF_LATENTS
        if flow:
            settings |= {"shift": self.shift, "use_flow_sigmas": True, "flow_shift": self.shift}
            settings["prediction_type"] = "flow_prediction"
        try:
            scheduler = _made(getattr(diffusers, class_name), settings)
        except CheckpointError as error:
            raise SettingsError(f"sampler {name!r} cannot follow the base's settings: {error}") from error
        if not flow and not torch.allclose(scheduler.alphas_cumprod, self.alphas_cumprod, rtol=1e-5, atol=1e-7):
            raise SettingsError(
                f"sampler {name!r} cannot follow the base's noise schedule (rescale_betas_zero_snr); choose ddim"
            )
        return scheduler


def _own_scheduler(config: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The class that the settings name, and its settings with its own defaults."""
    name = str(config.get("_class_name"))
    scheduler_class = getattr(diffusers, name, None)
    if not (isinstance(scheduler_class, type) and issubclass(scheduler_class, diffusers.SchedulerMixin)):
        raise CheckpointError(f"scheduler_config.json names the scheduler {name!r}, which diffusers does not have")
    own = dict(_made(scheduler_class, config).config)
    needed = ("num_train_timesteps", *(("shift",) if name in _FLOW_CLASSES else ("beta_schedule", "prediction_type")))
    if missing := [key for key in needed if key not in own]:
        raise CheckpointError(f"scheduler {name!r} is not served: it has no {missing[0]}")
    return name, {key: value for key, value in own.items() if not key.startswith("_")}


def _made(scheduler_class: Any, config: Mapping[str, Any]) -> Any:
    """The scheduler of these settings, those that its class does not know left out. Raises `CheckpointError`."""
    expected = scheduler_class._get_init_keys(scheduler_class)
    known = {key: value for key, value in config.items() if key in expected and not key.startswith("_")}
    try:
        return scheduler_class.from_config(known)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RuntimeError, ImportError) as error:
        raise CheckpointError(f"{scheduler_class.__name__} cannot be made from the base's settings: {error}") from error
