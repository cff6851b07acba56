"""Scientific names taken apart: genus, epithet, authorship and the qualifier that keeps a name from being certain."""

from __future__ import annotations

import html
import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from taxadiffusion.names.words import (
    ANNOTATIONS,
    AUTHOR_PARTICLES,
    GROUP_MARKERS,
    PARTICLES_ALSO_EPITHETS,
    RANK_MARKERS,
    SEXES_AND_STAGES,
    UNCERTAIN,
)
from taxadiffusion.names.written import clean_name

_NO_NAME = re.compile(
    r"(?:none|not|un-?named|unamed|gen\.|no)[\s_]|not$|.*incertae[\s_-]*sedis|inc\.\s*sed\b|unassigned|unidentified",
    re.I,
)
_NOT_A_NAME = re.compile(
    r"\b\w*virus(?:es)?\b.*\b(?:virus|human|korean)|^human \w*virus\b|\b\w*vir(?:us|uses|oid|oids)$"
    r"|\bvir(?:us|uses|oid|oids)\b|viruses\b|\bphages?\b|\w+phages?\b(?=\s|$)|\bprions?\b|\bplasmid\b"
    r"|(?:alpha|beta|\b)satellites?\b|\bexpression vector\b|phytoplasma|symbiont\b"
    r"|\b(?:cyano|proteo)?bacterium\b(?!\s+(?-i:[A-Z][a-z]+))|(?-i:RNA)(?:\d|_|\b)|\bDNA\b|\bparticles?\b|\b[SM]?NPV\b|\bICTV\b|\+",
    re.I,
)
_CULTIVAR = re.compile(r"'[A-Z][^']*'")
_BIN = re.compile(r"\bBOLD[:-][A-Z0-9]+\b", re.I)
_EPITHET = re.compile(r"(?:[1-9]\d?[-.]?)?(?:st\.-)?[^\W\d_]+(?:['’]?[^\W\d_]|-[^\W\d_]+)*\d?")
_SIMPLE_BINOMIAL = re.compile(r"([A-Z][a-z]+) ([a-z]{3,}(?:-[a-z]+)?)")


@dataclass(frozen=True, slots=True)
class ScientificName:
    """One parsed name. `genus` is the first name: the genus where an epithet follows, else a name of any rank.

    `qualifier` holds what makes the identification uncertain or provisional ("cf. cooperi", "sp. BOLD:AAV0432",
    "× S. caprea"); the certain part then stops at `genus`, and `epithet` is None. Aggregates ("complex", "group",
    "agg.") keep their epithet. A text that is no scientific name at all has `genus` None.
    """

    genus: str | None = None
    subgenus: str | None = None
    epithet: str | None = None
    infraspecific: tuple[str, ...] = ()
    infraspecific_rank: str | None = None
    authorship: str | None = None
    qualifier: str | None = None
    hybrid: bool = False

    @property
    def canonical(self) -> str | None:
        """The certain part without authorship or rank markers: "Salmo trutta fario"; None when nothing was parsed."""
        if not self.genus:
            return None
        if not self.epithet:
            return self.genus
        return " ".join((self.genus, self.epithet, *self.infraspecific))


@lru_cache(maxsize=30_000)
def parse_name(text: str) -> ScientificName:
    """Parse any scientific name: never raises; what cannot be parsed comes back with `genus` None.

    Binomials, trinomials with or without rank markers, subgenera in brackets, hybrids (named ones keep their epithet,
    formulae stop at the genus), `cf.`, `aff.`, `sp.`, BINs, authorship, annotations, HTML remnants and underscores.
    """
    if simple := _SIMPLE_BINOMIAL.fullmatch(text):
        genus, epithet = simple.groups()
        if not (epithet in UNCERTAIN or epithet in ANNOTATIONS or _is_no_name(text)):
            return ScientificName(genus, epithet=epithet)
    cleaned = _cleaned(text)
    return ScientificName() if _is_no_name(cleaned) else _Parser(cleaned).parse()


def _is_no_name(text: str) -> bool:
    return clean_name(text) is None or bool(_NO_NAME.match(text) or _NOT_A_NAME.search(text))


def _cleaned(text: str) -> str:
    text = html.unescape(re.sub(r"<[^<>]*>", "", text))
    text = unicodedata.normalize("NFC", text).replace("†", " ").replace("‑", "-").replace("\u00ad", "")
    for quote in "‘’`´":
        text = text.replace(quote, "'")
    if " " not in text.strip():
        text = re.sub(r"_+", " ", text)
    text = re.sub(r"\(\s*\(", "(", re.sub(r"\)\s*\)", ")", text))
    text = re.sub(r"(?<=[\w.])\(", " (", text.replace(")", ") "))
    text = re.sub(r"(?<=\w)\?(?=\s)", "", text)
    text = re.sub(r"\b(var|subsp|ssp|f|ab)\.(?=[a-zα-ω]{2,})", r"\1. ", text)
    text = re.sub(r"\b(var)\.([α-ω])\.(?=[a-z])", r"\1. \2. ", text)
    text = re.sub(r"(?<=\s)×(?=\S)|^×(?=\S)", "× ", text)
    return re.sub(r"\s+", " ", text).strip(" ,;:")


class _Parser:
    """Reads the tokens of one cleaned name from left to right."""

    def __init__(self, text: str) -> None:
        self.tokens = text.split(" ")
        self.position = 0
        self.hybrid = False
        self.genus: str | None = None
        self.subgenus: str | None = None
        self.epithet: str | None = None
        self.infraspecific: list[str] = []
        self.infraspecific_rank: str | None = None
        self.authorship: list[str] = []
        self.qualifier: str | None = None
        self._qualified_below_species = False

    def parse(self) -> ScientificName:
        self._leading_marks()
        if not self._read_genus():
            return ScientificName()
        while self.position < len(self.tokens) and self._step():
            pass
        certain = (
            self.qualifier is None or self.qualifier in ("complex", "group", "agg.") or self._qualified_below_species
        )
        return ScientificName(
            genus=self.genus,
            subgenus=self.subgenus,
            epithet=self.epithet if certain else None,
            infraspecific=tuple(self.infraspecific) if certain else (),
            infraspecific_rank=self.infraspecific_rank if certain else None,
            authorship=self._author() if certain else None,
            qualifier=self.qualifier,
            hybrid=self.hybrid,
        )

    def _author(self) -> str | None:
        """None without a letter: "Felis catus 2" and "Homo sapiens (1)" are numbered folders."""
        text = " ".join(self.authorship).strip(" ,;:")
        return text if re.search(r"[^\W\d_]", text) else None

    def _word(self, offset: int = 0) -> str:
        index = self.position + offset
        return self.tokens[index] if index < len(self.tokens) else ""

    def _rest(self) -> str:
        return " ".join(self.tokens[self.position :])

    def _leading_marks(self) -> None:
        while self._word() in ("×", "x", "X", "Candidatus", "subgen.") and len(self.tokens) > self.position + 1:
            self.hybrid = self.hybrid or self._word() in ("×", "x", "X")
            self.position += 1
        if match := re.fullmatch(r"[xX]([A-Z][a-z]+)", self._word()):
            self.hybrid = True
            self.tokens[self.position] = match[1]

    def _read_genus(self) -> bool:
        word = self._word().strip("\"'")
        if not word or re.search(r"\d", word) or not word[0].isupper() or word.lower() in ("gen.", "genn."):
            return False
        abbreviated = re.fullmatch(r"[A-Z][a-z]?\.", word) is not None
        body = word.rstrip(",;:") if not abbreviated else word
        parts = body.split("-")
        named = (
            all(part[:1].isalpha() and part[1:].islower() and part[1:].isalpha() for part in parts) and len(parts) <= 3
        )
        if not abbreviated and not (named and len(body) > 1):
            return False
        self.genus = body if abbreviated else "-".join((parts[0], *(part.lower() for part in parts[1:])))
        self.position += 1
        bracket = re.fullmatch(r"\(([^\W\d_]+\.?)\)", self._word())
        following = self._word(1)
        if bracket and (following[:1].islower() or following == "×") and following.strip(".") not in AUTHOR_PARTICLES:
            self.subgenus = bracket[1]
            self.position += 1
        return True

    def _step(self) -> bool:
        """Consume one token; False at the end of the name's meaningful part."""
        word = self._word()
        plain = word.strip('.,;:()[]?"').lower()
        marked = self.epithet is not None and RANK_MARKERS.get(plain)
        if marked and re.fullmatch(r"[α-ω]\.?|n\.", self._word(1)):
            self.position += 1
        if _BIN.search(word):
            self.qualifier = self._rest()
            return False
        if marked and self._is_epithet(self._word(1)):
            self._add_infraspecific(self._word(1), str(marked))
            self.position += 2
            return True
        if word in ("×", "x", "X"):
            return self._hybrid_mark()
        if self.epithet is None and self._marks_a_group(word, plain):
            self.subgenus, self.authorship = self._word(1).rstrip(","), []
            self.position += 2
            return True
        if self._uncertain(word, plain) or self._says_more(plain):
            return False
        if plain in ("complex", "group", "agg") or (plain == "species" and self._word(1) in ("complex", "group")):
            self.qualifier = "agg." if plain == "agg" else (self._word(1) if plain == "species" else plain)
            return False
        if plain in ANNOTATIONS or re.fullmatch(r"\(?s\.(?:\s?(?:l|s|str|lat)\.?)?\)?,?", word):
            return self._skip_annotation()
        return self._epithet_or_author(word)

    def _marks_a_group(self, word: str, plain: str) -> bool:
        """ "Cordia sect. Salimori"; without the period it may be an epithet: "Serina ser Gredler, 1898"."""
        abbreviated = word.endswith(".") or not re.search(r"\d{4}$", self.tokens[-1])
        return plain in GROUP_MARKERS and self._word(1)[:1].isupper() and abbreviated

    def _uncertain(self, word: str, plain: str) -> bool:
        if plain not in UNCERTAIN and not re.fullmatch(r"sp\.?\d+", plain):
            return False
        following = self._word(1)
        is_epithet = (
            plain in ("spec", "species", "sp") and self.epithet is None and re.match(r"\(?[A-Z][a-z]+,?$", following)
        )
        if is_epithet and re.search(r"\d{4}", self._rest()) and word == "spec":
            return False
        if plain in ("species",) and following in ("complex", "group"):
            return False
        self.qualifier = self._rest()
        trailing = self.position == len(self.tokens) - 1 and plain not in ("sp", "spp")
        self._qualified_below_species = self.epithet is not None and not trailing
        return True

    def _says_more(self, plain: str) -> bool:
        """A sex, a stage or a cultivar after the name, which stays certain; such words are no third name."""
        if not (plain in SEXES_AND_STAGES or _CULTIVAR.match(self._rest())):
            return False
        self.qualifier, self._qualified_below_species = self._rest(), self.epithet is not None
        return True

    def _hybrid_mark(self) -> bool:
        following = self._word(1)
        if self.epithet is None and not self.authorship and self._is_epithet(following):
            self.hybrid = True
            self.position += 1
            return True
        self.hybrid = True
        self.qualifier = " ".join(("×", *self.tokens[self.position + 1 :]))
        return False

    def _skip_annotation(self) -> bool:
        """Pass over a remark ("sensu Smith", "s.l.") up to the next rank marker."""
        for offset in range(1, len(self.tokens) - self.position):
            if RANK_MARKERS.get(self._word(offset).rstrip(".")) and self._is_epithet(self._word(offset + 1)):
                self.position += offset
                return True
        return False

    def _epithet_or_author(self, word: str) -> bool:
        is_epithet = self._is_epithet(word) and not self.authorship
        if is_epithet and self.epithet is None and not (word in AUTHOR_PARTICLES and not self._particle_is_epithet()):
            self.epithet = _as_epithet(word)
        elif is_epithet and self.epithet is not None and len(word) > 3 and word not in AUTHOR_PARTICLES:
            self._add_infraspecific(word, None)
        elif self.epithet is not None and word in ("*", "?", "B") and self._is_epithet(self._word(1)):
            pass
        else:
            self.authorship.append(word)
        self.position += 1
        return True

    def _particle_is_epithet(self) -> bool:
        """ "Semiothisa da Dyar, 1916": a particle is the epithet when an author with a year or a bracket follows it."""
        following = self._word(1)
        author_and_year = following[:1].isupper() and re.search(r"\d{4}$", self.tokens[-1]) is not None
        return self._word() in PARTICLES_ALSO_EPITHETS and (following.startswith("(") or author_and_year)

    def _add_infraspecific(self, word: str, rank: str | None) -> None:
        self.infraspecific.append(_as_epithet(word))
        self.infraspecific_rank = rank or "subspecies"
        self.authorship = []

    @staticmethod
    def _is_epithet(word: str) -> bool:
        bare = word.rstrip(",;")
        return (
            len(bare) > 1
            and _EPITHET.fullmatch(bare) is not None
            and bare == bare.lower()
            and bare not in ANNOTATIONS
            and bare not in ("et", "and", "ex", "in", "y", "al", "apud", "not")
        )


def _as_epithet(word: str) -> str:
    return word.rstrip(",;").replace("'", "").replace("st.-", "st-")
