"""What a shared model's own `pipeline.py` gives diffusers: the pipeline, opened from where diffusers found it."""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline

from taxadiffusion.adapter import Adapter, open_model
from taxadiffusion.errors import SettingsError
from taxadiffusion.pipeline import TaxaDiffusionPipeline


class HubPipeline(TaxaDiffusionPipeline):
    """`DiffusionPipeline.from_pretrained(MODEL, custom_pipeline="pipeline", trust_remote_code=True)`.

    The model is read when it is first used, strictly, as every model is (`adapter.open_model`): diffusers itself would
    read the base alone. Device and precision are chosen then: `pipeline.open(device="cuda")`, or the CPU.
    """

    def __init__(self) -> None:
        DiffusionPipeline.__init__(self)

    @property
    def adapter(self) -> Adapter:  # type: ignore[override]
        """The model. Raises `CheckpointError` where it does not verify."""
        if "_adapter" not in self.__dict__:
            self.open()
        return self.__dict__["_adapter"]  # type: ignore[no-any-return]

    def open(self, **options: Any) -> HubPipeline:
        """Read the model now; base, dtype, device as in `TaxaDiffusionPipeline.from_pretrained`.

        Raises `SettingsError` where diffusers did not say where it found the model, `CheckpointError` as `open_model`.
        """
        where = getattr(self, "_internal_dict", {}).get("_name_or_path")
        if not where:
            raise SettingsError("the pipeline was made without a model: DiffusionPipeline.from_pretrained(MODEL, …)")
        opened = TaxaDiffusionPipeline(open_model(str(where), **options))
        self.__dict__["_adapter"] = opened.adapter
        self.register_modules(**opened.components)
        return self

    def to(self, *args: Any, **kwargs: Any) -> HubPipeline:
        """As in diffusers, the model being read first."""
        assert self.adapter is not None
        super().to(*args, **kwargs)
        return self
