"""README.md and docs/: short lines, links that lead somewhere, and commands that today's command line takes."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Iterator, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from training.method_figure import shipped_figure
from typer.main import get_command

from taxadiffusion import config
from taxadiffusion.cli import app
from taxadiffusion.readers import FORMATS

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
HISTORY = ROOT / "docs" / "log.md"
"""Tells what was typed then: its commands may name settings that are gone."""

LONGEST_LINE = 130
LONGEST_PARAGRAPH = 5
ELIDED = "…"
SOURCE = ROOT / "src" / "taxadiffusion"
REFERENCE = re.compile(
    r"`([\w/]+\.py):([\w.]+)`|`((?:base|cli|condition|evaluate|pictures|readers|run|tables|trainer)/\w+\.py)`"
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```")
COMMANDS = get_command(app)
CODE_SPAN = re.compile(r"(?<!`)`([^`]+)`(?!`)")
STARTS = re.compile(r"(?:^|(?<=\s)|(?<=&& ))(taxadiffusion|python -m|make|pytest)\)? (?=[a-z-])")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def documents() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    bare = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", bare).replace(" ", "-")


def lines_without_code(text: str) -> list[str]:
    """The lines of the text, those of fenced and indented code left empty."""
    lines, fenced, before = [], False, ""
    for line in text.splitlines():
        fence = bool(FENCE.match(line))
        indented = line.startswith("    ") and not before.strip()
        lines.append("" if fenced or fence or indented else line)
        fenced ^= fence
        before = "" if indented else line
    return lines


def without_code(text: str) -> str:
    return "\n".join(lines_without_code(text))


def anchors(path: Path) -> set[str]:
    found: set[str] = set()
    for line in lines_without_code(path.read_text(encoding="utf-8")):
        if heading := re.match(r"#+ (.+)", line):
            own, number = slug(heading[1].strip()), 0
            while (name := f"{own}-{number}" if number else own) in found:
                number += 1
            found.add(name)
    return found


def dead_links(path: Path, text: str) -> list[str]:
    dead = []
    for target in LINK.findall(without_code(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        if not found.exists():
            dead.append(f"{target}: there is no such file")
        elif anchor and found.suffix == ".md" and anchor not in anchors(found):
            dead.append(f"{target}: there is no such heading")
    return dead


def printed(text: str) -> Iterator[str]:
    """Every line of shell that a document shows: of code blocks, continued lines joined, and of `code spans`."""
    shown = zip(text.splitlines(), lines_without_code(text), strict=True)
    code = "\n".join("" if prose else line for line, prose in shown)
    yield from (line.strip() for line in re.sub(r" *\\\n *", " ", code).splitlines() if line.strip())
    for span in CODE_SPAN.findall(without_code(text)):
        yield " ".join(span.split())


def commands(text: str) -> Iterator[list[str]]:
    """What is typed: the words of every command of ours, from `taxadiffusion`, `python`, `make` or `pytest` on."""
    for line in printed(text):
        for part in re.split(r"&&|;|\|(?![a-z])| # |  +#", line.partition("  # ")[0]):
            start = STARTS.search(part)
            if start:
                yield shlex.split(
                    part[start.start() :].replace(")", " ", 1) if ")" in start[0] else part[start.start() :]
                )


def faults(words: Sequence[str]) -> list[str]:
    program, *arguments = words
    arguments = [word if "=[" in word else word.strip("[]") for word in arguments]  # a list is no option left out
    if program == "taxadiffusion":
        return faults_of_ours(arguments)
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return [f"make {arguments[0]}: no such target"] if arguments[0] not in targets else []
    if program == "pytest":
        files = [word for word in arguments if word.startswith("tests/")]
        return [f"{word}: no such file" for word in files if not (ROOT / word).exists()]
    return faults_of_module(arguments[1], arguments[2:])


def faults_of_module(module: str, arguments: Sequence[str]) -> list[str]:
    """Of `python -m MODULE …`: the module is there, and each option stands in its source."""
    place = ROOT / module.replace(".", "/")
    package = sorted(place.glob("*.py"))
    files = package or [place.with_suffix(".py")]
    if module.partition(".")[0] not in ("training", "benchmarks", "tests"):
        return []
    if not files[0].exists():
        return [f"python -m {module}: no such module"]
    source = "\n".join(file.read_text(encoding="utf-8") for file in files)
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    return [f"python -m {module} has no {option}" for option in sorted(options) if f'"{option}"' not in source]


def faults_of_ours(arguments: list[str]) -> list[str]:
    """Of `taxadiffusion …`: what the real command line, its settings and its readers do not take."""
    name, *rest = arguments
    if name.startswith("-"):
        return []
    command = COMMANDS.commands.get(name)  # type: ignore[attr-defined]
    if command is None:
        return [f"taxadiffusion {name}: no such command"]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    options = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)} - {"-h", "--help"}
    unknown = sorted(options - known)
    if command.context_settings.get("ignore_unknown_options"):
        unknown = [option for option in unknown if option[2:].replace("-", "_") not in reader_options()]
    wrong = [f"taxadiffusion {name} has no option {option}" for option in unknown]
    if not wrong and len(rest) > 1 and not any(ELIDED in word or "$" in word for word in rest):
        try:
            command.make_context(name, list(rest))
        except Exception as error:  # noqa: BLE001 - typer may bring a click of its own
            wrong.append(f"taxadiffusion {name}: {getattr(error, 'message', error)}")
    wrong += [f"{word}: no such file" for word in rest if word.startswith("configs/") and not (ROOT / word).exists()]
    assigned = [value for key, value in pairwise(rest) if key == "--set" and "$" not in value]
    config.parse({}, assigned)  # raises for a setting that is not there
    return wrong


def reader_options() -> set[str]:
    modules = (import_module(f"taxadiffusion.readers.{module}") for module in FORMATS.values())
    return {
        name
        for module in modules
        for name in inspect.signature(getattr(module, "Options", module.open_source)).parameters
    }


def long_paragraphs(text: str) -> list[str]:
    """First lines of paragraphs and list items of more than five lines; code and tables are none."""
    blocks: list[list[str]] = [[]]
    for line in without_code(re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)).splitlines():
        if not line.strip() or line.startswith(("|", "#", "* ", "- ")):
            blocks.append([])
        if line.strip() and not line.startswith(("|", "#")):
            blocks[-1].append(line)
    return [block[0] for block in blocks if len(block) > LONGEST_PARAGRAPH]


def undefined(text: str) -> list[str]:
    """`file.py:name` references of the text below src/taxadiffusion/ whose file or definition is not there."""
    wrong = []
    for named, dotted, alone in REFERENCE.findall(text):
        file = named or alone
        path = SOURCE / file
        source = path.read_text(encoding="utf-8") if path.is_file() else ""
        *classes, last = dotted.split(".") if dotted else [""]
        defined = [rf"^class {name}\b" for name in classes]
        defined += [rf"^ *(?:def|class) {last}\b|^{last}\b.*="] if last else []
        if not source or not all(re.search(pattern, source, re.MULTILINE) for pattern in defined):
            wrong.append(f"{file}:{dotted}")
    return wrong


@documents()
def test_every_function_that_is_named_is_there(path: Path) -> None:
    assert undefined(path.read_text(encoding="utf-8")) == []


def test_the_table_of_modules_is_the_import_contract() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows: dict[int, set[str]] = {}
    for number, cell in re.findall(r"^\| (\d+) \| ([^|]+) \|", text, re.MULTILINE):
        rows.setdefault(int(number), set()).update(name.rstrip("/") for name in re.findall(r"`([^`]+)`", cell))
    contract = re.search(
        r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.DOTALL | re.M
    )
    assert contract is not None
    layers = [set(layer.split(" | ")) for layer in re.findall(r'"([^"]+)"', contract[1])]
    assert [rows[number] for number in sorted(rows, reverse=True)] == layers


@documents()
def test_no_line_is_longer_than_a_person_reads(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [(n, len(line)) for n, line in enumerate(lines, 1) if len(line) > LONGEST_LINE] == []


@documents()
def test_every_link_leads_somewhere(path: Path) -> None:
    assert dead_links(path, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if path != HISTORY], ids=name_of)
def test_every_command_is_taken_by_the_command_line(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert [fault for words in commands(text) for fault in faults(words)] == []


def test_the_figure_of_the_method_is_what_the_code_says() -> None:
    drawn = (ROOT / "docs" / "pictures" / "method.svg").read_text(encoding="utf-8")
    assert drawn == shipped_figure()


def test_no_paragraph_of_the_read_me_is_long() -> None:
    assert long_paragraphs((ROOT / "README.md").read_text(encoding="utf-8")) == []


def test_the_read_me_shows_how_to_begin() -> None:
    shown = [words[:2] for words in commands((ROOT / "README.md").read_text(encoding="utf-8"))]
    for command in ("check", "prepare", "train", "generate", "evaluate", "reproduce"):
        assert ["taxadiffusion", command] in shown, f"{command} is nowhere in README.md"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("taxadiffusion generate reef-fish Zanclus -n 8", None),
        ("taxadiffusion generate reef-fish Zanclus --number 8", "no option --number"),
        ("taxadiffusion draw reef-fish", "no such command"),
        ("taxadiffusion generate reef-fish Zanclus -n many", "valid integer"),
        ("taxadiffusion prepare FISH out --order-column Order", None),
        ("taxadiffusion prepare FISH out --columns Order", "no option --columns"),
        ("taxadiffusion train configs/none.yaml", "no such file"),
        ("accelerate launch --num_processes 8 … taxadiffusion evaluate … --dat X", "no option --dat"),
        ("python -m training.probe --reel X", "no --reel"),
        ("make everything", "no such target"),
        ("pytest tests/test_nothing.py", "no such file"),
    ],
)
def test_a_command_that_is_not_taken_is_noticed(line: str, fault: str | None) -> None:
    for text in (f"```\n{line}\n```", f"Type\n\n    {line}    # this\n", f"Type `{line}`."):
        found = list(commands(text))
        assert len(found) == 1
        assert (fault or "") in " ".join(faults(found[0]))
        assert bool(faults(found[0])) == bool(fault)


def test_a_dead_link_and_a_long_paragraph_are_noticed() -> None:
    here = ROOT / "README.md"
    assert dead_links(here, "[a](docs/data.md#fishnet) [b](docs/no.md) [c](docs/data.md#no) [d](https://x.org)") == [
        "docs/no.md: there is no such file",
        "docs/data.md#no: there is no such heading",
    ]
    six = "\n".join("words" for _ in range(6))
    assert long_paragraphs(f"# Head\n{six}\n\n* a\n* b\n\n| a |\n{six}") == ["words", "words"]
