"""Backbone and conditioner together: prediction, loss, which parameters a stage trains, and their state."""

# Letters: B batch, C latent channels, H W latent size, T tokens, D width.
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.base.extra_attention import decoupled_parameters
from taxadiffusion.base.lora import lora_parameters, lora_targets
from taxadiffusion.base.weights import check_tensors, copy_tensors
from taxadiffusion.condition import Conditioner
from taxadiffusion.errors import CheckpointError, SettingsError
from taxadiffusion.names import Lineage
from taxadiffusion.stages import Stage


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training forward needs. Lineages are as they condition: truncated, with holes, or empty (null)."""

    latents: Tensor  # (B, C, H, W) float32, scaled
    lineages: Sequence[Lineage]  # B
    noise: Tensor  # (B, C, H, W)
    timesteps: Tensor  # (B,) from backbone.schedule.timesteps_of


@dataclass(frozen=True, slots=True)
class Losses:
    """Of every sample, (B,): `plain` is the mean square error, to be reported; `weighted` is what is minimised."""

    plain: Tensor
    weighted: Tensor


class Denoiser(nn.Module):
    """`ε_θ(x_t, t, c(lineage))`.

    full_unet: the U-Net's own weights belong to what is trained and saved (the full fine-tuning baseline).
    min_snr_gamma: min-SNR loss weighting; None (the paper) weights every noise level alike.
    """

    def __init__(
        self,
        backbone: Backbone,
        conditioner: Conditioner,
        *,
        full_unet: bool = False,
        min_snr_gamma: float | None = None,
    ) -> None:
        super().__init__()
        if full_unet and backbone.dtype != torch.float32:
            raise SettingsError(f"full fine-tuning needs the base in float32, it was loaded in {backbone.dtype}")
        if min_snr_gamma is not None and backbone.schedule.prediction == "flow_prediction":
            raise SettingsError("min-SNR weighting is not defined for a flow base: leave min_snr_gamma unset")
        self.backbone = backbone
        self.conditioner = conditioner
        self.full_unet = full_unet
        self.min_snr_gamma = min_snr_gamma

    def groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """Everything that can be trained: group ("lora", "encoder.order", …) → parameter's full name → parameter."""
        unet = self.backbone.unet
        found = {"lora": lora_parameters(unet), "taxon_attention": decoupled_parameters(unet)}
        if self.full_unet:
            found["unet"] = dict(unet.named_parameters())
        named = {group: _prefixed("backbone.unet", parameters) for group, parameters in found.items() if parameters}
        for group, parameters in self.conditioner.parameter_groups().items():
            named[group] = _prefixed("conditioner", parameters)
        return named

    def prepare_stage(self, stage: Stage, *, merge_lora: bool = False) -> dict[str, nn.Parameter]:
        """Freeze everything but the stage's groups (M2); returns those by name.

        Frozen means no gradient and `eval()`; training mode is set on trained encoders (their dropout) and on a fully
        trained U-Net alone. merge_lora: a LoRA that this stage does not train is added to the weights it belongs to.
        Raises `SettingsError` for a group this model does not have.
        """
        groups = self.groups()
        if unknown := [group for group in stage.trains if group not in groups]:
            raise SettingsError(
                f"stage {stage.name!r} trains {unknown[0]!r}, which this model lacks; it has {', '.join(groups)}"
            )
        self.requires_grad_(False)
        self.eval()
        self.conditioner.train_only(stage.trains)
        if "unet" in stage.trains:
            self.backbone.unet.train()
        trained = {name: parameter for group in stage.trains for name, parameter in groups[group].items()}
        for parameter in trained.values():
            parameter.requires_grad_(True)
        if merge_lora and "lora" not in stage.trains:
            self.backbone.merge_lora()
        else:
            self.backbone.unmerge_lora()
        return trained

    def losses(self, batch: Batch) -> Losses:
        """The mean square error of the prediction (M3), and weighted by min-SNR if asked."""
        schedule = self.backbone.schedule
        noisy_latents = schedule.add_noise(batch.latents, batch.noise, batch.timesteps)
        prediction = self.backbone(noisy_latents, batch.timesteps, self.conditioner.distinct(batch.lineages))
        target = schedule.target(batch.latents, batch.noise, batch.timesteps)
        plain: Tensor = (prediction - target).square().flatten(1).mean(1)  # (B,)
        if self.min_snr_gamma is None:
            return Losses(plain, plain)
        return Losses(plain, plain * schedule.min_snr_weight(batch.timesteps, self.min_snr_gamma))

    def forward(self, batch: Batch) -> Tensor:
        """What training minimises of every sample, (B,)."""
        return self.losses(batch).weighted

    def _sections(self) -> dict[str, dict[str, Tensor]]:
        """What an adapter is, live: section → name in its file → parameter. Empty sections are absent."""
        unet = self.backbone.unet
        sections: dict[str, dict[str, Tensor]] = {
            "conditioner": dict(self.conditioner.named_parameters()),
            "lora": lora_targets(unet),
            "taxon_attention": dict(decoupled_parameters(unet)),
            "unet": dict(unet.named_parameters()) if self.full_unet else {},
        }
        return {section: tensors for section, tensors in sections.items() if tensors}

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies of all that training can change: conditioner, lora (diffusers' names), taxon_attention, unet."""
        return {
            section: {name: tensor.detach().clone() for name, tensor in tensors.items()}
            for section, tensors in self._sections().items()
        }

    def load_state(self, state: Mapping[str, Mapping[str, Tensor]], source: str) -> None:
        """Load what `state` gave, strictly: sections, names, shapes and finite values, all or nothing.

        source: named in messages. Raises `CheckpointError`; the model is then as it was, bit for bit.
        """
        self.backbone.unmerge_lora()
        sections = self._sections()
        if set(sections) != set(state):
            raise CheckpointError(f"{source} holds {sorted(state)}, this model consists of {sorted(sections)}")
        for section, tensors in sections.items():
            check_tensors(tensors, state[section], f"{source} ({section})")
        for section, tensors in sections.items():
            copy_tensors(tensors, state[section], f"{source} ({section})")
        self.conditioner.loaded()


def _prefixed(prefix: str, parameters: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {f"{prefix}.{name}": parameter for name, parameter in parameters.items()}
