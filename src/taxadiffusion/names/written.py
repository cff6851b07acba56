"""What a cell says before it is parsed: no name at all, a name in quotation marks, a name in unusual capitals."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_MISSING = frozenset({
    "", "-", "--", "?", ".", "nan", "none", "null", "nil", "na", "n/a", "n.a.", "#n/a", "nd", "unknown", "unidentified",
    "unclassified", "not classified", "not available", "not determined", "undetermined", "indet", "indet.",
    "unassigned", "unplaced", "incertae sedis", "other", "misc",
})  # fmt: skip
_MISSING_START = re.compile(r"^(unassigned|unclassified|unidentified|unknown|unplaced|not classified)\b", re.IGNORECASE)

_NO_WORD = frozenset({"nan", "none", "null", "unknown", "undefined", "unidentified", "undetermined"})
"""Words that no epithet is spelt as. "nil" is one (Ipomoea nil), and so may be "na" in lower case."""
_NO_WORD_EXACTLY = frozenset({"NA", "NaT", "N/A", "n/a", "<NA>", "#N/A", "-", "--", "?", "."})

_QUOTATION_MARKS = {'"': '"', "“": "”", "”": "”", "„": "“", "«": "»", "‘": "’", "'": "'", "`": "`"}
_ABOVE_GENUS = re.compile(r"(?:idae|inae|oidea|aceae|oideae|ineae|ales|formes|viridae|phyta|mycetes|mycota|phyceae)$")
_LARGE_ORDERS = frozenset({
    "Coleoptera", "Diptera", "Lepidoptera", "Hymenoptera", "Hemiptera", "Orthoptera", "Odonata", "Araneae", "Acari",
    "Trichoptera", "Neuroptera", "Thysanoptera", "Psocoptera", "Collembola", "Insecta", "Arachnida", "Plantae",
    "Animalia", "Fungi", "Aves", "Mammalia", "Amphibia", "Reptilia", "Pisces",
})  # fmt: skip

_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_PLAIN = re.compile(r"[A-Z][a-z]+(?: [a-z]{3,}(?:-[a-z]+)?){1,2}")
_LATIN_ENDING = re.compile(r"(?:us|a|um|is|e|i|ae|es|ens|ans|x|or|o|ops|al)$")
_AUTHORS = frozenset({
    "linnaeus", "linne", "linné", "fabricius", "latreille", "bonaparte", "rafinesque", "poda", "costa", "scopoli",
    "rossi", "risso", "curtis", "davis", "harris", "jones", "taylor", "lacepede", "lacépède", "kuntze", "gené",
    "spinola", "bonelli", "silvestri", "doria", "pascoe", "moore", "guenee", "guenée", "boie", "white", "rose",
    "greene", "rathke", "cope", "peracca", "camerano", "rondani", "bezzi", "bellardi", "passerini", "blume", "say",
    "fries", "rolfe", "ridley", "cavanilles", "thwaites", "nees", "laxmann", "pallas", "blanco", "duda", "melo",
    "breddin", "stephens", "westwood", "bates", "sharpe", "goode", "steindachner", "heude", "hasse", "hesse",
})  # fmt: skip
"""Authors of names without a year whose own names end like a Latin word; the others are told by their ending."""
_MARKS = frozenset({"var", "subsp", "ssp", "f", "forma", "cf", "aff", "sp", "spp", "nr", "x", "×"})
_LATIN_SPELLINGS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "å": "ao", "ø": "oe", "æ": "ae", "œ": "oe", "ß": "ss", "ſ": "s"}
)


@dataclass(frozen=True, slots=True)
class Written:
    """A cell made ready for the parser. `notes` say what was read differently from the letter, "kind: from → to"."""

    text: str
    """Empty where the cell says that there is no name."""
    notes: tuple[str, ...] = ()


def clean_name(value: str | None) -> str | None:
    """A taxon's name as written, NFC-normalised, white space collapsed; None where the cell says "no name".

    Placeholders ("", nan, None, N/A, unknown, not_classified, "unassigned Formicinae", "… incertae sedis") are missing.
    """
    if value is None:
        return None
    name = " ".join(unicodedata.normalize("NFC", value).split())
    plain = name.casefold().replace("_", " ").strip("()[]<>\"' ")
    if plain in _MISSING or _MISSING_START.match(plain) or plain.endswith("incertae sedis"):
        return None
    return name


def written_name(text: str) -> Written:
    """A binomial, trinomial or uninomial, perhaps with its author, as the parser expects it.

    "Amphiprion nan", as a table program joins a genus to an empty cell, is "Amphiprion"; "AMPHIPRION CLARKII" and
    "Amphiprion Clarkii" are "Amphiprion clarkii"; quotation marks around the whole are taken off.
    """
    if _PLAIN.fullmatch(text) and _NO_WORD.isdisjoint(text.lower().split(" ")) and clean_name(text):
        return Written(text)
    return _written(text, (unquoted, "quotation_marks"), (_named, "placeholder_in_name"), (usual_capitals, "capitals"))


@lru_cache(maxsize=30_000)
def written_taxon(text: str) -> Written:
    """A name of a rank above species: ANIMALIA and animalia are Animalia."""
    return _written(text, (unquoted, "quotation_marks"), (_capitalised, "capitals"))


def _written(text: str, *steps: tuple[Callable[[str], str], str]) -> Written:
    cleaned = clean_name(text)
    if cleaned is None:
        return Written("")
    notes = []
    for change, kind in steps:
        changed = change(cleaned)
        if changed != cleaned:
            notes.append(f"{kind}: {cleaned} → {changed or '(no name)'}")
            cleaned = changed
    return Written(cleaned, tuple(notes))


def kinds(counts: Mapping[str, int]) -> Counter[str]:
    """Counts of notes added up by kind: what stands before their first colon."""
    total: Counter[str] = Counter()
    for note, number in counts.items():
        total[note.partition(": ")[0]] += number
    return total


def says_no_name(word: str) -> bool:
    """Whether a word within a name stands for no name: "nan", "None", "NA"."""
    return word in _NO_WORD_EXACTLY or word.lower() in _NO_WORD


def is_above_genus(name: str) -> bool:
    """Whether a name alone, by its ending, is that of a family or a coarser taxon and cannot be a genus."""
    return _ABOVE_GENUS.search(name) is not None or name in _LARGE_ORDERS


def unquoted(text: str) -> str:
    """Without quotation marks around the whole."""
    while len(text) > 2 and _QUOTATION_MARKS.get(text[0]) == text[-1] and text[0] not in text[1:-1]:
        text = text[1:-1].strip()
    return text


def _named(text: str) -> str:
    """The words before the first that stands for no name: "Canis nan familiaris" is certain of Canis alone."""
    words = text.split(" ")
    for position, word in enumerate(words):
        following = words[position + 1] if position + 1 < len(words) else ""
        closes = not following and words[position - 1] != "×"
        alone = word in _NO_WORD_EXACTLY and (len(word) > 1 or closes)
        if alone or (word.lower() in _NO_WORD and not _is_author(position, word, following)):
            return " ".join(words[:position])
    return text


def _is_author(position: int, word: str, following: str) -> bool:
    """People are called Nan and None: such a word with a year after it, or Nan after an epithet."""
    has_year = re.match(r"[\[(]?\d", following) is not None
    return position > 0 and word.istitle() and (has_year or (position > 1 and word == "Nan"))


def _capitalised(text: str) -> str:
    """One word in capitals alone, or in small letters alone; short ones may be abbreviations (SAR)."""
    is_word = _WORD.fullmatch(text) is not None
    return text.capitalize() if is_word and ((text.isupper() and len(text) > 3) or text.islower()) else text


def usual_capitals(text: str) -> str:
    """Genus with a capital, epithets without: from capitals alone, or from a capital on every word.

    A capital word after a genus may be its author ("Zanclus Cuvier"): it counts as an epithet when it ends as Latin
    words do, is no well-known author's name and no year or "&" follows that would be its own.
    """
    words = text.split(" ")
    if not _WORD.fullmatch(words[0]) or len(words[0]) < 2 or words[0] == "Candidatus":
        return text
    if len(words) == 1:
        return words[0].capitalize() if words[0].isupper() and len(words[0]) > 3 else text
    if text.isupper():
        return _from_capitals(words)
    if words[0].isupper() and len(words[0]) > 3:
        words[0] = words[0].capitalize()
    count = _num_epithets(words[1:], lambda word: _LATIN_ENDING.search(word) is not None)
    after = words[1 + count] if 1 + count < len(words) else ""
    if words[0][:1].isupper() and not after[:1].islower():  # else a subgenus without its brackets
        words[1 : 1 + count] = [word.lower() for word in words[1 : 1 + count]]
    return " ".join(words)


def _num_epithets(words: list[str], has_form: Callable[[str], bool]) -> int:
    """How many of the words, capitals on all of them, are epithets; two at most."""
    count = 0
    while count < min(2, len(words)) and _may_be_epithet(words[count]) and has_form(words[count].lower()):
        count += 1
    following = words[count] if count < len(words) else ""
    is_author_before = count > 0 and re.match(r"[\[(]?\d|&|et$|and$|ex$|in$", following.lower()) is not None
    return count - is_author_before


def _may_be_epithet(word: str) -> bool:
    is_capital = word.isupper() or word.istitle()
    return is_capital and len(word) > 1 and _WORD.fullmatch(word) is not None and word.lower() not in _AUTHORS


def _from_capitals(words: list[str]) -> str:
    """A text in capitals alone: genus, perhaps a subgenus, epithets, marks ("CF.", "VAR."), then authors."""
    done = [words[0].capitalize()]
    rest = words[1:]
    if len(rest) > 1 and re.fullmatch(r"\([^\W\d_]+\)", rest[0]) and _may_be_epithet(rest[1]):
        done.append(rest.pop(0).title())
    while rest:
        if rest[0].lower().strip(".") in _MARKS:
            done.append(rest.pop(0).lower())
            count = 1 if rest and _may_be_epithet(rest[0]) else 0
        else:
            count = _num_epithets(rest, lambda _: True)
        if count == 0 and not (rest and rest[0].lower().strip(".") in _MARKS):
            break
        done += [word.lower() for word in rest[:count]]
        rest = rest[count:]
    return " ".join((*done, *(word if re.search(r"[\d:]", word) else word.title() for word in rest)))


def folded_spelling(name: str) -> str:
    """Lower case without diacritics, ligatures, hyphens and apostrophes, the way the codes of nomenclature spell names.

    Two names of one taxon that differ only here ("mülleri", "muelleri") fold to the same text.
    """
    name = name.lower().translate(_LATIN_SPELLINGS)
    plain = unicodedata.normalize("NFD", name)
    return "".join(c for c in plain if not unicodedata.combining(c) and c not in "-'’.")
