"""The noise schedule of a base, read once from its scheduler's settings: for training and for sampling alike."""

# Letters: B batch, N number of training noise levels.
from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import diffusers
from torch import Tensor

from taxadiffusion.errors import CheckpointError, SettingsError

Prediction = Literal["epsilon", "v_prediction", "flow_prediction"]
SamplerName = Literal["dpm", "ddim", "unipc", "euler", "euler_a", "heun", "pndm", "flow_euler"]

_FLOW_CLASSES = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler")
# Class, and what it is told where the base's settings are silent (diffusers' defaults there suit pixels, not latents).
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
    """One noise schedule, from a base's `scheduler/scheduler_config.json` (METHOD, fault 1: never two).

    `timesteps` are always what the U-Net is told: integers 0 … N−1 for ε- and v-prediction, `sigma·N` for flow.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self.num_timesteps = int(self.config.get("num_train_timesteps", 1000))
        self.prediction: Prediction = self._prediction()

    def _prediction(self) -> Prediction:
        name = self.config.get("_class_name", "")
        if name in _FLOW_CLASSES:
            return "flow_prediction"
        prediction = self.config.get("prediction_type", "epsilon")
        if prediction not in ("epsilon", "v_prediction", "flow_prediction"):
            raise CheckpointError(f"scheduler {name!r} predicts {prediction!r}; known: epsilon, v_prediction, flow")
        return prediction  # type: ignore[no-any-return]

    @cached_property
    def alphas_cumprod(self) -> Tensor:
        """ᾱ_t of ε- and v-prediction, (N,) float32, as diffusers computes it from the same settings."""
        scheduler = diffusers.DDPMScheduler.from_config(_known(diffusers.DDPMScheduler, self.config))
        return scheduler.alphas_cumprod.float()  # type: ignore[no-any-return]

    def timesteps_of(self, uniform: Tensor) -> Tensor:
        """Noise levels for uniform numbers in [0, 1): (B,) → (B,); flow levels carry the base's shift."""
        if self.prediction != "flow_prediction":
            return (uniform * self.num_timesteps).long().clamp_(0, self.num_timesteps - 1)
        shift = float(self.config.get("shift", 1.0))
        sigmas = 1.0 - uniform  # (0, 1]: pure noise is seen, a clean picture is not
        return shift * sigmas / (1.0 + (shift - 1.0) * sigmas) * self.num_timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """x_t: `√ᾱ·x + √(1−ᾱ)·ε` (DDPM eq. 4), or `(1−σ)·x + σ·ε` (rectified flow); all (B, C, H, W)."""
        signal, spread = self._coefficients(timesteps, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """What the U-Net learns to predict: ε, `√ᾱ·ε − √(1−ᾱ)·x` (v), or `ε − x` (flow)."""
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
        alpha = self.alphas_cumprod.to(like.device)[timesteps.long()][:, None, None, None].to(like)  # (B, 1, 1, 1)
        return alpha.sqrt(), (1.0 - alpha).sqrt()

    def min_snr_weight(self, timesteps: Tensor, gamma: float) -> Tensor:
        """Loss weights `min(SNR, γ)/SNR` for ε and `min(SNR, γ)/(SNR+1)` for v (Hang et al. 2023, §3.4): (B,)."""
        if self.prediction == "flow_prediction":
            raise SettingsError("min-SNR weighting is not defined for a flow base: leave min_snr_gamma unset")
        alpha = self.alphas_cumprod.to(timesteps.device)[timesteps.long()]  # (B,)
        snr = alpha / (1.0 - alpha).clamp_min(1e-12)
        below = snr if self.prediction == "epsilon" else snr + 1.0
        return snr.clamp_max(gamma) / below.clamp_min(1e-12)

    def noise_fraction(self, timestep: float) -> float:
        """Where a timestep lies in the schedule: 0 = clean, 1 = pure noise."""
        last = self.num_timesteps if self.prediction == "flow_prediction" else self.num_timesteps - 1
        return min(1.0, max(0.0, timestep / last))

    def scheduler(self, name: SamplerName | None = None) -> Any:
        """A diffusers scheduler over this schedule; by default DPM-Solver++, and Euler for a flow base.

        Raises `SettingsError` for an unknown name or one that cannot follow the base's prediction.
        """
        flow = self.prediction == "flow_prediction"
        name = name or ("flow_euler" if flow else "dpm")
        allowed = _FLOW_SAMPLERS if flow else tuple(known for known in _SAMPLERS if known != "flow_euler")
        if name not in allowed:
            raise SettingsError(f"sampler {name!r} cannot follow {self.prediction}; choose one of {', '.join(allowed)}")
        class_name, silent = _SAMPLERS[name]
        scheduler_class = getattr(diffusers, class_name)
        settings = silent | _known(scheduler_class, self.config)
        if flow and name != "flow_euler":
            settings |= {
                "use_flow_sigmas": True,
                "flow_shift": float(self.config.get("shift", 1.0)),
                "prediction_type": "flow_prediction",
            }
        return scheduler_class.from_config(settings)


def _known(scheduler_class: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that the scheduler class knows, so that `from_config` does not warn about the others."""
    expected = scheduler_class._get_init_keys(scheduler_class)
    return {key: value for key, value in config.items() if key in expected and not key.startswith("_")}
