"""The settings of every conditioner, told apart by `kind`."""

from __future__ import annotations
