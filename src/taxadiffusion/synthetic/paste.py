"""Copy and paste: the subject of one photograph on the background of another, what synthetic pictures must beat."""

# s sides of a picture
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from taxadiffusion.metrics.copies import middle_of

Image = NDArray[np.uint8]
Floats = NDArray[np.floating]

_EDGE = 1 / 12  # of a side: what is taken for background
_SHARE = 0.45  # of the strongest contrast with the edges
_SOFT_PX = 1.0
_FILL = 1 / 6  # of a side: from how far a hole is filled


def subject_of(image: Image) -> Floats:
    """(s, s) from 0 to 1, how much of each pixel of a (3, s, s) photograph belongs to its subject.

    What is unlike every edge of the frame and near its middle, for photographs are prepared about the animal. No
    network is asked; on a busy background it is rough. Where nothing stands out it is the middle of the frame.
    """
    pixels = image.transpose(1, 2, 0).astype(np.float64)
    strip = max(1, round(len(pixels) * _EDGE))
    edges = (pixels[:strip], pixels[-strip:], pixels[:, :strip], pixels[:, -strip:])
    unlike = np.min([np.linalg.norm(pixels - edge.reshape(-1, 3).mean(0), axis=2) for edge in edges], axis=0)
    middle = middle_of(len(pixels))
    contrast = unlike * middle
    inside = contrast > _SHARE * np.percentile(contrast, 97)
    if inside.mean() < 0.01:
        inside = middle > 0.5
    return np.asarray(gaussian_filter(inside.astype(np.float64), _SOFT_PX))


def background_of(image: Image) -> Floats:
    """(3, s, s): the photograph with its subject filled from around it."""
    left = 1 - subject_of(image)
    left = left * (left > 0.9)
    reach = image.shape[-1] * _FILL
    weight = gaussian_filter(left, reach).clip(1e-9)
    around = np.stack([gaussian_filter(channel * left, reach) / weight for channel in image.astype(np.float64)])
    return np.asarray(left * image + (1 - left) * around)


def pasted(subject: Image, background: Image, *, mirrored: bool = False) -> Image:
    """The subject of one (3, s, s) photograph, where it stands, on the background of another of the same size."""
    if mirrored:
        subject = subject[..., ::-1]
    mask = subject_of(subject)
    joined = mask * subject + (1 - mask) * background_of(background)
    return np.asarray(joined.round().clip(0, 255), dtype=np.uint8)
