"""A run in an interpreter of its own that says when its signal handlers stand: `… RUN_DIR READY_FILE`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    """As `taxadiffusion train` begins: handlers first, the slow imports after them."""
    from taxadiffusion.errors import TaxaDiffusionError
    from taxadiffusion.trainer.signals import StopSignal

    stop = StopSignal()
    stop.install()
    Path(sys.argv[2]).touch()
    try:
        from tests.faults.training import Job, pristine

        pristine()
        stop.raise_if_set("starting")
        Path(sys.argv[1]).mkdir(parents=True)
        Job(Path(sys.argv[1]), steps=10_000, stop=stop).run()
    except TaxaDiffusionError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
