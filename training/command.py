"""How every command here ends: a fault that a user can repair is one line and an exit code, as in the package."""

from __future__ import annotations

import sys
from collections.abc import Callable

from taxadiffusion.errors import TaxaDiffusionError


def run(command: Callable[[], None]) -> None:
    try:
        command()
    except TaxaDiffusionError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
