"""A picture as a PNG that carries its recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from taxadiffusion.files import whole

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
"""IPTC's term for a picture made by a trained model, written into every file."""


SOURCE = "synthetic image"

RECIPE_CHUNK = "taxadiffusion"
"""The text chunk that holds the recipe, as JSON."""

_XMP = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
 xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmlns:dwc="http://rs.tdwg.org/dwc/terms/"
 Iptc4xmpExt:DigitalSourceType={source_type} xmp:CreatorTool={tool} dwc:scientificName={name}{taxon_id}/>
</rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def read_picture(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A generated file as uint8 (3, h, w)."""
    with Image.open(path, formats=("PNG",)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def save_picture(image: np.ndarray[Any, np.dtype[np.uint8]], path: Path, recipe: dict[str, str]) -> None:
    info = PngInfo()
    info.add_itxt("Title", f"{recipe['scientific_name']} ({SOURCE})")
    info.add_itxt("Software", recipe["software"])
    info.add_itxt(RECIPE_CHUNK, json.dumps(recipe, ensure_ascii=False))
    packet = _XMP.format(
        source_type=quoteattr(DIGITAL_SOURCE_TYPE),
        tool=quoteattr(recipe["software"]),
        name=quoteattr(recipe["scientific_name"]),
        taxon_id=f" dwc:taxonID={quoteattr(recipe['source_taxon_id'])}" if recipe["source_taxon_id"] else "",
    )
    info.add_itxt("XML:com.adobe.xmp", packet)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as aside:
        Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(aside, format="PNG", pnginfo=info)


def is_whole(path: Path) -> bool:
    """Whether every chunk of the PNG has its checksum; the pixels are not decoded, which takes twenty times as long."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            image.verify()
    except (OSError, SyntaxError):
        return False
    return True
