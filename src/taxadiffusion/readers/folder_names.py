"""What the name of a folder says of the pictures in it: their split; a taxon, or why it cannot be one."""

from __future__ import annotations

import re
import unicodedata

from taxadiffusion.names import clean_name, is_above_genus, parse_name, unquoted, written_name
from taxadiffusion.readers.taxon import StatedTaxon, read_taxon

SPLITS = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "judge": "judge",
}  # fmt: skip
"""Folders (and words of the column `split`) that say whose use the pictures are for, in lower case."""

_REPEATS = re.compile(r"^\d+[_ ]+(?=[^\W\d_])")
_ONE_WORD = re.compile(r"([^\W\d_]{2,})[-.]([^\W\d_]{2,})")
_VIRUS = re.compile(r"vir(?:us|uses|oid|oids)\b|\bphages?\b", re.I)


def split_from_path(image: str) -> str | None:
    """The split that the first folder of a path names, as in Hugging Face's convention."""
    first, _, rest = image.partition("/")
    return SPLITS.get(first.lower()) if rest else None


def taxon_of_folder(folder: str) -> StatedTaxon | str:
    """The taxon that a folder is called by, or one sentence on why its name is none.

    Understood beside "Amphiprion_clarkii": spaces, one hyphen or dot for the space, capitals alone, authors, subgenera,
    third names, `cf.`, `aff.`, `sp.`, hybrids, sexes, a number before ("10_", how often a trainer repeats it) or after.
    """
    text = " ".join(unicodedata.normalize("NFC", folder).replace("_", " ").split())
    bare = _REPEATS.sub("", text)
    notes = () if bare == text else (f"number_before_name: {text} → {bare}",)
    if joined := _ONE_WORD.fullmatch(bare):
        first, second = joined.groups()
        if first[0].isupper():
            bare = f"{first} {second}"
    bare = re.sub(r"^[xX] (?=[A-Z])", "× ", bare)
    if fault := _fault(folder, bare):
        return fault
    written = written_name(bare)
    genus = parse_name(written.text).genus or ""
    taxon = read_taxon((("genus", genus),), bare, "binomial")
    if taxon.fault or not taxon.lineage:
        return _no_name(folder)
    return StatedTaxon(taxon.lineage, taxon.authorship, taxon.qualifier, (*notes, *taxon.notes))


def _fault(folder: str, text: str) -> str | None:
    if clean_name(text) is None or not written_name(text).text:
        return f"folder {folder!r} says that there is no name; give a name table (option names), or leave it out"
    if _VIRUS.search(text):
        return f"folder {folder!r} names a virus, which has no genus and epithet; give a name table (option names)"
    name = unquoted(text)
    if name[:1].islower() and re.fullmatch(r"[^\W\d_]+ [^\W\d_]+", name):
        proposed = "_".join((name.split(" ")[0].capitalize(), name.split(" ")[1]))
        return (
            f"folder {folder!r} does not start with a capital: rename it {proposed!r} if that is a scientific name; "
            "else give a name table (option names)"
        )
    parsed = parse_name(written_name(name).text)
    if parsed.genus is None or is_above_genus(parsed.genus):
        return _no_name(folder)
    has_year = parsed.authorship is not None and re.search(r"\d{4}|[&.]", parsed.authorship)
    if parsed.epithet is None and parsed.qualifier is None and parsed.authorship and not has_year:
        return _no_name(folder)  # "House_Sparrow"
    return None


def _no_name(folder: str) -> str:
    return f"folder {folder!r} is not a name such as Genus_species; give a name table (option names)"
