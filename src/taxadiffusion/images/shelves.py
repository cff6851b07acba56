"""Where pictures of a large job lie: no folder holds more than a few thousand files."""

from __future__ import annotations

MOST_IN_TAXON_FOLDERS = 1000
"""Up to so many pictures lie in a folder for each taxon, where people look at them."""

_SHELVES_OF_TWO_DIGITS = 500_000


def shelf(num_pictures: int, taxon: str, digest: str) -> str:
    """The sub-folder of a picture in a job of `num_pictures`: its taxon's, or one of 256 (4,096 beyond half a million).

    digest: hexadecimal digits that spread evenly. A shelf does not depend on the other pictures of the job.
    """
    if num_pictures <= MOST_IN_TAXON_FOLDERS:
        return taxon
    return f"shard-{digest[: 2 if num_pictures <= _SHELVES_OF_TWO_DIGITS else 3]}"
