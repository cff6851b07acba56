"""The errors a user can cause, each with the exit code a command leaves with."""

from __future__ import annotations


class TaxaDiffusionError(Exception):
    """A fault that a user can repair; its message names the file, row, value and remedy. Commands print it alone."""

    exit_code = 1


class SettingsError(TaxaDiffusionError):
    """A setting, option or configuration key is wrong."""

    exit_code = 2


class DataError(TaxaDiffusionError):
    """A source, table, image or taxon is wrong."""

    exit_code = 3


class CheckpointError(TaxaDiffusionError):
    """A checkpoint, adapter, base or lock does not verify, does not match or cannot be written."""

    exit_code = 4


class NonFiniteError(TaxaDiffusionError):
    """Losses, gradients, latents or pictures were not finite (or blank) too many times in a row."""

    exit_code = 70


class PreemptedError(TaxaDiffusionError):
    """The run was told to stop (SIGTERM, SIGUSR1), committed, and resumes when the same command is run again."""

    exit_code = 75


class InterruptedByUserError(TaxaDiffusionError):
    """The run was interrupted (SIGINT), committed, and resumes when the same command is run again."""

    exit_code = 130
