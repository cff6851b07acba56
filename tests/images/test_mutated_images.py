"""Damaged pictures are accepted whole or quarantined with a reason; none crashes `prepare` or is lost."""

from __future__ import annotations

from tests.mutated_images import FORMATS, MUTATIONS, run


def test_every_mutation_of_every_format_is_accounted_for() -> None:
    num_images = 2 * len(FORMATS) * len(MUTATIONS)
    result = run(num_images, seed=1, num_workers=1)
    accepted, quarantined = result["accepted"], result["quarantined"]
    assert isinstance(accepted, int)
    assert isinstance(quarantined, int)
    assert accepted + quarantined == num_images
    assert min(accepted, quarantined) > num_images // 10
