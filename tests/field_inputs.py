"""Files as people really have them, made small: tables, archives and their pictures, each written by a function."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

FISH = (
    ("Perciformes", "Pomacentridae", "Amphiprion", "clarkii"),
    ("Perciformes", "Pomacentridae", "Chromis", "viridis"),
    ("Perciformes", "Labridae", "Thalassoma", "lunare"),
    ("Tetraodontiformes", "Zanclidae", "Zanclus", "cornutus"),
)
RANKS = ("order", "family", "genus", "species")
TERMS = ("occurrenceID", "scientificName", "kingdom", "family", "genus", "specificEpithet")
INPUTS: dict[str, Callable[[Path], None]] = {}


def binomial(number: int) -> str:
    return " ".join(FISH[number % 4][2:])


def picture(path: Path, number: int) -> None:
    """A small picture that no other number has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (24, 24), (10 * number % 256, 90, 200 - 7 * number % 200))
    for step in range(24):
        image.putpixel((step, (step * (number + 3)) % 24), (255, 255, 10 * number % 256))
    image.save(path, "JPEG", quality=90)


def table(
    folder: Path,
    count: int = 8,
    separator: str = ",",
    end: str = "\n",
    header: Sequence[str] = ("file_name", *RANKS),
    row: Callable[[int], Sequence[str]] = lambda i: (f"p{i:03d}.jpg", *FISH[i % 4]),
    name: Callable[[int], str] = "p{:03d}.jpg".format,
) -> None:
    """`metadata.csv` and its pictures."""
    lines = [separator.join(header), *(separator.join(row(i)) for i in range(count))]
    (folder / "metadata.csv").write_bytes((end.join(lines) + end).encode("utf-8", "surrogateescape"))
    for i in range(count):
        picture(folder / name(i), i)


def put_before_table(folder: Path, start: bytes) -> None:
    path = folder / "metadata.csv"
    path.write_bytes(start + path.read_bytes())


def occurrence(number: int, authorship: str = " Author, 1800") -> tuple[str, ...]:
    _, family, genus, epithet = FISH[number % 4]
    return (f"occ{number}", f"{genus} {epithet}{authorship}", "Animalia", family, genus, epithet)


def occurrences(
    folder: Path,
    rows: Sequence[Sequence[str]] | None = None,
    header: Sequence[str] = TERMS,
    separator: str = "\t",
    end: str = "\n",
    comments: tuple[Sequence[str], Sequence[str]] = ((), ()),
    name: str = "occurrence.txt",
) -> None:
    """A core table; `comments` stand before and after its header."""
    rows = [occurrence(i) for i in range(8)] if rows is None else rows
    lines = [*comments[0], separator.join(header), *comments[1], *(separator.join(row) for row in rows)]
    (folder / name).write_bytes((end.join(lines) + end).encode())


def encode_table(folder: Path, encoding: str) -> None:
    path = folder / "occurrence.txt"
    path.write_bytes(path.read_bytes().decode().encode(encoding))


def descriptor(
    folder: Path,
    terms: Sequence[str] = TERMS,
    core: str = 'encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n" fieldsEnclosedBy=""',
    header_lines: int = 1,
    files: Sequence[str] = ("occurrence.txt",),
    media: tuple[str, Sequence[str], Sequence[str]] | None = None,
) -> None:
    """meta.xml; `media` is (rowType, terms after the coreid, files)."""

    def part(tag: str, attributes: str, row_type: str, link: str, fields: str, names: Sequence[str]) -> str:
        where = "".join(f"<location>{name}</location>" for name in names)
        first = f'<{tag} {attributes} ignoreHeaderLines="{header_lines}" rowType="{row_type}">'
        return f'{first}<files>{where}</files><{link} index="0"/>{fields}</{tag}>'

    fields = "".join(f'<field index="{i}" term="http://rs.tdwg.org/dwc/terms/{term}"/>' for i, term in enumerate(terms))
    text = part("core", core, "http://rs.tdwg.org/dwc/terms/Occurrence", "id", fields, files)
    if media:
        fields = "".join(f'<field index="{i}" term="http://purl.org/dc/terms/{t}"/>' for i, t in enumerate(media[1], 1))
        text += part("extension", core, media[0], "coreid", fields, media[2])
    (folder / "meta.xml").write_text(f'<archive xmlns="http://rs.tdwg.org/dwc/text/">{text}</archive>')


def url(number: int) -> str:
    return f"https://img.example.org/{number}/full.jpg"


def downloaded(number: int) -> str:
    return hashlib.md5(url(number).encode(), usedforsecurity=False).hexdigest() + ".jpg"


def media(
    folder: Path,
    row_type: str,
    terms: Sequence[str],
    cells: Callable[[int], Sequence[str]],
    more: Sequence[Sequence[str]] = (),
) -> None:
    """Occurrences with a media table of eight pictures, which were downloaded."""
    occurrences(folder)
    descriptor(folder, media=(row_type, terms, ("media.txt",)))
    rows = [(f"occ{i}", url(i), *cells(i)) for i in range(8)]
    lines = ["\t".join(("coreid", *terms)), *("\t".join(row) for row in [*rows, *more])]
    (folder / "media.txt").write_text("\n".join(lines) + "\n")
    for i in range(8):
        picture(folder / "media" / downloaded(i), i)


def with_pictures(folder: Path, count: int = 8) -> None:
    for i in range(count):
        picture(folder / f"occ{i}.jpg", i)


def case(name: str) -> Callable[[Callable[[Path], None]], Callable[[Path], None]]:
    def add(write: Callable[[Path], None]) -> Callable[[Path], None]:
        INPUTS[name] = write
        return write

    return add


MULTIMEDIA = "http://rs.gbif.org/terms/1.0/Multimedia"
FORMATS = ("JPEG", ".jpg", "image/jpg", "jpg ", "image/jpeg; charset=binary", "IMAGE/JPEG", "TIFF", "webp")


def _photo(number: int) -> str:
    return f"p{number:03d}.jpg"


def _remark(number: int) -> str:
    return '"Bob reef' if number in (2, 9) else "ok"


@case("t-openquote")
def _(folder: Path) -> None:
    table(folder, 12, header=("file_name", *RANKS, "remarks"), row=lambda i: (_photo(i), *FISH[i % 4], _remark(i)))


@case("t-openquote-mid")
def _(folder: Path) -> None:
    table(folder, 12, header=("file_name", "remarks", *RANKS), row=lambda i: (_photo(i), _remark(i), *FISH[i % 4]))


@case("t-quotedspace")
def _(folder: Path) -> None:
    header = ("file_name", *(f" {rank}" for rank in RANKS))
    table(folder, 4, header=header, row=lambda i: (f'"p{i:03d}.jpg"', *(f' "{name}"' for name in FISH[i % 4])))


@case("t-shortrows")
def _(folder: Path) -> None:
    header = ("file_name", *RANKS, "remarks", "license")
    table(folder, 40, header=header, row=lambda i: (f"p{i:03d}.jpg", *FISH[i % 4], *(("", "") if i < 16 else ())))


@case("t-sepline")
def _(folder: Path) -> None:
    table(folder, separator=";", end="\r\n")
    put_before_table(folder, b"sep=;\r\n")


@case("t-sepcomma")
def _(folder: Path) -> None:
    table(folder, end="\r\n")
    put_before_table(folder, b"sep=,\r\n")


@case("t-pipe")
def _(folder: Path) -> None:
    table(folder, separator="|")


@case("t-dupcase")
def _(folder: Path) -> None:
    header = ("file_name", "Order", "Family", "Genus", "Species", "species")
    table(folder, header=header, row=lambda i: (f"p{i:03d}.jpg", *FISH[i % 4], "Amphiprion clarkii"))


@case("t-inat-export")
def _(folder: Path) -> None:
    ranks = ("kingdom", "phylum", "class", "order", "family", "genus", "species")
    columns = [f"taxon_{rank}_name" for rank in ranks]

    def row(i: int) -> tuple[str, ...]:
        order, family, genus, _ = FISH[i % 4]
        names = ("Animalia", "Chordata", "Actinopterygii", order, family, genus, binomial(i))
        start = (str(1000 + i), "2021-05-01", url(i), binomial(i), '"Clown, fish"')
        return (*start, *names, "research", f"p{i:03d}.jpg")

    first = ("id", "observed_on", "image_url", "scientific_name", "common_name")
    table(folder, end="\r\n", header=(*first, *columns, "quality_grade", "file_name"), row=row)


@case("t-colon")
def _(folder: Path) -> None:
    table(folder, 4, row=lambda i: (f"CAM1:{i:04d}.jpg", *FISH[i]), name="CAM1:{:04d}.jpg".format)


@case("t-tilde")
def _(folder: Path) -> None:
    table(folder, 4, row=lambda i: (f"~p{i}.jpg", *FISH[i]), name="~p{}.jpg".format)


@case("t-nfd")
def _(folder: Path) -> None:
    names = ("müller1.jpg", "müller2.jpg", "é.jpg", "å.jpg")
    table(folder, 4, row=lambda i: (names[i], *FISH[i]), name=lambda i: unicodedata.normalize("NFD", names[i]))


@case("t-backslash")
def _(folder: Path) -> None:
    table(folder, 4, row=lambda i: (f"fish\\p{i}.jpg", *FISH[i]), name="fish/p{}.jpg".format)


@case("t-bomsemi")
def _(folder: Path) -> None:
    table(folder, separator=";", end="\r\n")
    put_before_table(folder, b"\xef\xbb\xbf")


@case("t-commahead")
def _(folder: Path) -> None:
    header = ("file_name", *RANKS, '"notes, free; text; with; many; semicolons; in; head"')
    table(folder, header=header, row=lambda i: (f"p{i:03d}.jpg", *FISH[i % 4], ""))


@case("t-cp1252")
def _(folder: Path) -> None:
    table(folder, row=lambda i: (f"p{i:03d}.jpg", *FISH[i % 4][:3], "m\udcfclleri" if i == 3 else FISH[i % 4][3]))


@case("t-cr")
def _(folder: Path) -> None:
    table(folder, end="\r")


@case("t-ids")
def _(folder: Path) -> None:
    header = ("file_name", *RANKS, "id", "group")
    table(folder, header=header, row=lambda i: (f"p{i:03d}.jpg", *FISH[i % 4], f"{i}.0", f"{i // 2}.0"))


@case("t-placeholders")
def _(folder: Path) -> None:
    words = ("nan", "N/A", "Unknown", "not_classified", "-", "?", "incertae sedis", "Unassigned Labridae")
    table(folder, row=lambda i: (f"p{i:03d}.jpg", FISH[i % 4][0], words[i], *FISH[i % 4][2:]))


@case("t-semidecimal")
def _(folder: Path) -> None:
    header = ("file_name", *RANKS, "lat")
    table(folder, separator=";", header=header, row=lambda i: (f"p{i:03d}.jpg", *FISH[i % 4], "48,13"))


@case("t-trailspace")
def _(folder: Path) -> None:
    header = ("file_name", *(f" {rank}" for rank in RANKS))
    table(folder, 4, header=header, row=lambda i: (f" p{i:03d}.jpg ", *(f"  {name} " for name in FISH[i])))


@case("t-utf16")
def _(folder: Path) -> None:
    table(folder, separator="\t")
    path = folder / "metadata.csv"
    path.write_bytes(path.read_text().encode("utf-16"))


@case("d-openquote")
def _(folder: Path) -> None:
    rows = [(*occurrence(i, "")[:2], '"Bob reef' if i in (1, 6) else "reef", *occurrence(i)[2:]) for i in range(8)]
    terms = (*TERMS[:2], "locality", *TERMS[2:])
    occurrences(folder, rows, terms)
    descriptor(folder, terms, core='encoding="UTF-8" fieldsTerminatedBy="\\t" linesTerminatedBy="\\n"')
    with_pictures(folder)


@case("d-twofiles")
def _(folder: Path) -> None:
    terms = ("identifier", "type", "format")
    names = ("occurrence1.txt", "occurrence2.txt")
    descriptor(folder, files=names, media=(MULTIMEDIA, terms, ("multimedia1.txt", "multimedia2.txt")))
    for part in (0, 1):
        numbers = range(4 * part, 4 * part + 4)
        occurrences(folder, [occurrence(i) for i in numbers], name=names[part])
        rows = [(f"occ{i}", url(i), "StillImage", "image/jpeg") for i in numbers]
        lines = ["\t".join(("coreid", *terms)), *("\t".join(row) for row in rows)]
        (folder / f"multimedia{part + 1}.txt").write_text("\n".join(lines) + "\n")
    for i in range(8):
        picture(folder / "media" / downloaded(i), i)


@case("d-header3")
def _(folder: Path) -> None:
    occurrences(folder, comments=(("# exported", "# from our data base"), ()))
    descriptor(folder, header_lines=3)
    with_pictures(folder)


@case("d-header3b")
def _(folder: Path) -> None:
    occurrences(folder, comments=((), ("# exported", "# from our data base")))
    descriptor(folder, header_lines=3)
    with_pictures(folder)


@case("d-cr")
def _(folder: Path) -> None:
    occurrences(folder, end="\r")
    with_pictures(folder)


@case("d-cr-meta")
def _(folder: Path) -> None:
    occurrences(folder, end="\r")
    descriptor(folder, core='fieldsTerminatedBy="\\t" linesTerminatedBy="\\r" fieldsEnclosedBy=""')
    with_pictures(folder)


@case("d-cr-meta-quoted")
def _(folder: Path) -> None:
    occurrences(folder, [occurrence(i, "") for i in range(8)], separator=",", end="\r")
    descriptor(folder, core='fieldsTerminatedBy="," linesTerminatedBy="\\r" fieldsEnclosedBy=\'"\'')
    with_pictures(folder)


@case("d-multichar")
def _(folder: Path) -> None:
    occurrences(folder, separator="||")
    descriptor(folder, core='fieldsTerminatedBy="||" linesTerminatedBy="\\n"')
    with_pictures(folder)


@case("d-encempty")
def _(folder: Path) -> None:
    occurrences(folder)
    descriptor(folder, core='encoding="" fieldsTerminatedBy="\\t"')


@case("d-latin1")
def _(folder: Path) -> None:
    occurrences(folder, [occurrence(i, " Müller, 1800") for i in range(8)])
    encode_table(folder, "latin-1")
    descriptor(folder, core='encoding="ISO-8859-1" fieldsTerminatedBy="\\t" fieldsEnclosedBy=""')
    with_pictures(folder)


@case("d-utf16table")
def _(folder: Path) -> None:
    occurrences(folder)
    encode_table(folder, "utf-16")
    descriptor(folder, core='encoding="UTF-16" fieldsTerminatedBy="\\t" fieldsEnclosedBy=""')
    with_pictures(folder)


@case("d-simple-quote")
def _(folder: Path) -> None:
    rows = [(str(i), binomial(i), binomial(i), FISH[i % 4][1], FISH[i % 4][2], _remark(i + 1)) for i in range(8)]
    occurrences(folder, rows, ("gbifID", "scientificName", "species", "family", "genus", "locality"))
    for i in range(8):
        picture(folder / f"{i}.jpg", i)


@case("d-imageext")
def _(folder: Path) -> None:
    row_type = "http://rs.gbif.org/terms/1.0/Image"
    media(folder, row_type, ("identifier", "title", "license"), lambda _: ("a fish", "CC-BY"))


@case("d-notype")
def _(folder: Path) -> None:
    media(folder, MULTIMEDIA, ("identifier", "type", "format"), lambda _: ("", ""))


@case("d-oddformat")
def _(folder: Path) -> None:
    media(folder, MULTIMEDIA, ("identifier", "type", "format"), lambda i: ("", FORMATS[i]))


@case("d-movingimage")
def _(folder: Path) -> None:
    more = [
        ("occ1", "https://img.example.org/1/clip.mp4", "MovingImage", ""),
        ("occ2", "https://img.example.org/2/song.mp3", "Sound", ""),
    ]
    media(folder, MULTIMEDIA, ("identifier", "type", "format"), lambda _: ("StillImage", ""), more)


@case("d-assocmedia")
def _(folder: Path) -> None:
    terms = ("occurrenceID", "scientificName", "family", "genus", "specificEpithet", "associatedMedia")
    rows = [(f"occ{i}", binomial(i), *FISH[i][1:], f"{url(2 * i)}; {url(2 * i + 1)}") for i in range(4)]
    occurrences(folder, rows, terms)
    descriptor(folder, terms)
    for i in range(8):
        picture(folder / "media" / downloaded(i), i)


@case("h-hfparquet")
def _(folder: Path) -> None:
    rows = []
    for i in range(4):
        picture(folder / "made.jpg", i)
        held = {"bytes": (folder / "made.jpg").read_bytes(), "path": f"p{i:03d}.jpg"}
        rows.append({"image": held, **dict(zip(RANKS, FISH[i], strict=True))})
    (folder / "made.jpg").unlink()
    (folder / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "data" / "train-00000-of-00001.parquet")
