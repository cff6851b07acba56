"""The earlier state of a row's own model that guidance is away from: the commit that its last stage begins from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from taxadiffusion import checkpoint
from taxadiffusion.names import Rank
from taxadiffusion.run import plan_of
from taxadiffusion.stages import before_last_stage, encoder_group
from taxadiffusion.tables.training import Model


def earlier_commit(model: Model, ranks: Sequence[Rank]) -> Path | None:
    """Where the commit lies, or will when the model is trained; None: no stage comes before the last."""
    step = before_last_stage(plan_of(model.settings, ranks))
    return None if step is None else checkpoint.path_of(model.run_dir, step)


def why_none(model: Model, ranks: Sequence[Rank]) -> str | None:
    """Why no earlier state of the model can be guided away from; None: one lies there, or will when it is trained."""
    if model.settings.start.adapter:
        return "the model goes on from an adapter, whose own stages are not kept"
    last = plan_of(model.settings, ranks)[-1]
    commit = earlier_commit(model, ranks)
    if commit is None:
        return "its training has a single stage"
    if last.trains == (encoder_group(last.rank),):
        return (
            f"its last stage trains the encoder of {last.rank} alone, so the stage before it is the model itself asked "
            f"for the {ranks[-2]} (stages.lora_in_every_stage is off)"
        )
    done = [_step(path) for path in checkpoint.candidates(model.run_dir)]
    if _step(commit) in done or max(done, default=0) < _step(commit):
        return None
    return (
        f"{commit} is not there: {model.run_dir} was trained without checkpoint.keep_weaker, as earlier versions did; "
        "delete it to train it again"
    )


def _step(commit: Path) -> int:
    return int(commit.name.removeprefix("step-"))


def left_out_words(left_out: Mapping[str, str]) -> str:
    """What a table says of the rows that it lacks; "" where it lacks none."""
    reasons: dict[str, list[str]] = {}
    for row, why in left_out.items():
        reasons.setdefault(why, []).append(row)
    told = "; ".join(f"{', '.join(rows)} ({why})" for why, rows in reasons.items())
    return f"Rows left out, {len(left_out)}: {told}." if left_out else ""
