"""The one place that turns settings into objects: data, base, denoiser, trainer."""

from taxadiffusion.run.objects import build_denoiser, build_latents, load_backbone, plan_of, ranks_of
from taxadiffusion.run.opened import Run, Trial, open_run, trial
from taxadiffusion.run.training import standard_watchers, train

__all__ = [
    "Run",
    "Trial",
    "build_denoiser",
    "build_latents",
    "load_backbone",
    "open_run",
    "plan_of",
    "ranks_of",
    "standard_watchers",
    "train",
    "trial",
]
