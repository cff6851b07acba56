"""The one place that turns settings into objects: data, base, denoiser, trainer."""

from taxadiffusion.build.objects import build_denoiser, build_latents, load_backbone, plan_of, ranks_of, taxa_of
from taxadiffusion.build.run import Run, Trial, build_run, trial

__all__ = [
    "Run",
    "Trial",
    "build_denoiser",
    "build_latents",
    "build_run",
    "load_backbone",
    "plan_of",
    "ranks_of",
    "taxa_of",
    "trial",
]
