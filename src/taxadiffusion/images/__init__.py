"""Pictures: decode safely, orient, crop or pad with the aspect kept, draw contact sheets. uint8 (B, 3, H, W), numpy."""

from taxadiffusion.images.decode import CHANGED, IMAGE_FORMATS, Decoded, ImageError, Seen, decode_image, read_image_file
from taxadiffusion.images.fit import FITS, Fit, fit_image, load_image
from taxadiffusion.images.frame import content_box
from taxadiffusion.images.grid import image_grid
from taxadiffusion.images.similarity import colour_layout, hamming, layout_distance, perceptual_hash

__all__ = [
    "CHANGED",
    "FITS",
    "IMAGE_FORMATS",
    "Decoded",
    "Fit",
    "ImageError",
    "Seen",
    "colour_layout",
    "content_box",
    "decode_image",
    "fit_image",
    "hamming",
    "image_grid",
    "layout_distance",
    "load_image",
    "perceptual_hash",
    "read_image_file",
]
