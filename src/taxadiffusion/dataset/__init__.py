"""The prepared data set on disk: made by `prepare`, opened memory-mapped by `PreparedDataset`."""

from taxadiffusion.dataset.prepare import prepare
from taxadiffusion.dataset.prepared import ImageRow, PreparedDataset
from taxadiffusion.dataset.report import PrepareProgress, PrepareReport, PrepareSettings
from taxadiffusion.dataset.shards import Shard

__all__ = ["ImageRow", "PrepareProgress", "PrepareReport", "PrepareSettings", "PreparedDataset", "Shard", "prepare"]
