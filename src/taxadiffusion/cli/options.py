"""Options that several commands have: each declared once, with one meaning, and its default where that is one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from taxadiffusion.cli.paths import text_argument
from taxadiffusion.guidance import DEFAULT_SCALE

MAX_SEED = 2**63 - 1
"""The largest seed that every generator of random numbers takes."""

# defaults

GUIDANCE_SCALE = DEFAULT_SCALE
NUM_STEPS = 25
PER_TAXON = 10
SIZE_PX = 64
BATCH_SIZE = 16
WHOLE_SCHEDULE = (0.0, 1.0)
MAX_DRAWS = 32
BEAM = 3
SEPARATION = 2.0
PREDICTIONS = 64

# where

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option("--device", help="Where to compute: auto (a GPU where there is one), cpu, cuda, or mps (Apple)."),
]
"""`base.device.chosen_device` is the rule; `auto` is every command's default."""

Engine = Annotated[
    Literal["torch", "bfloat16", "onnxruntime", "compiled"],
    typer.Option(
        help="bfloat16 is faster on a CPU with AMX or AVX-512 BF16; onnxruntime (on a CPU) once built, in seconds; "
        "compiled, in minutes."
    ),
]
"""What predicts, in sampling; `torch` is every command's default."""

Root = Annotated[Path | None, typer.Option(help="Where the photographs are now, if they were moved.")]
Base = Annotated[
    str | None, typer.Option(parser=text_argument, help="Where a model's base lies, if not where the model says.")
]

# a source

Format = Annotated[str | None, typer.Option(help="The source's format; detected without.")]
Fix = Annotated[Path | None, typer.Option(help="Rules (YAML) that repair names before anything else is judged.")]
FollowLinks = Annotated[
    bool, typer.Option("--follow-links", help="Use what links lead to outside of the image folder.")
]

# a training

Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="key=value over the file, e.g. lora.rank=8. May be repeated.")
]

# sampling

Steps = Annotated[int, typer.Option("--steps", min=1, help="Sampling steps.")]
GuidanceScale = Annotated[float, typer.Option(help="How much guidance steers; 1 = no guidance.")]
SamplerName = Literal["dpm", "ddim", "unipc", "euler", "euler_a", "heun", "pndm", "flow_euler"]
"""As `base.noise.SamplerName`, which stands beside torch."""

SamplerChoice = Annotated[
    SamplerName | None, typer.Option(help="The solver; left out: dpm, and flow_euler for a flow base.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures denoised together.")]
GuidanceInterval = Annotated[tuple[float, float], typer.Option(help="Where guidance acts, 0 = clean … 1 = pure noise.")]
PerTaxon = Annotated[int, typer.Option(min=1, help="Images of each taxon that each model draws.")]

# sharing

LicenseId = Annotated[
    str, typer.Option("--license", help="Of what you share, as the hub calls it: cc-by-4.0, cc-by-nc-4.0, other …")
]

# measuring

Sight = Annotated[
    str,
    typer.Option("--extractor", help="What looks at pictures: inception, bioclip, bioclip-2, bioclip-2.5, onnx:FILE."),
]
"""Of a command that needs one network."""
SightWeights = Annotated[Path | None, typer.Option("--weights", help="That network's weights, without network.")]

Extractor = Annotated[
    list[str] | None,
    typer.Option(
        help="What looks at the images: inception (if none is given), bioclip, bioclip-2, bioclip-2.5 or onnx:FILE. "
        "A second one is a second judge of how often they are named right."
    ),
]
Weights = Annotated[
    list[Path] | None, typer.Option(help="Each extractor's weights, in their order, for use without network.")
]
Lpips = Annotated[Path | None, typer.Option(help="AlexNet weights: also measure LPIPS.")]
TrueTraits = Annotated[
    Path | None, typer.Option(help="Folder that `simulate` wrote, of this data: also measure trait error.")
]
SizePx = Annotated[int, typer.Option(min=16, help="Both sides are compared at this size.")]
OwnSizePx = Annotated[
    int | None,
    typer.Option(
        "--size-px", min=16, help="Side at which pictures and photographs are looked at; none: the pictures' own."
    ),
]

# a model that looks at photographs

HeldOutSplit = Annotated[
    str | None, typer.Option("--split", help="Whose photographs; none: those that no model was trained on.")
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only so many photographs, drawn; a larger number adds to them.")
]
MaxDraws = Annotated[int, typer.Option(min=2, help="Noises at one node of the tree at most.")]
Beam = Annotated[int, typer.Option(min=1, help="Taxa that are followed where none is separated from the others.")]
Separation = Annotated[
    float, typer.Option(help="Standard errors of the paired difference at which a taxon is out of the race.")
]
Predictions = Annotated[int, typer.Option("--batch-size", min=1, help="Predictions made together.")]
