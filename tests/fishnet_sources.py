"""FishNet sets of a few pictures."""

from __future__ import annotations

from pathlib import Path

HEADER = (
    ",Unnamed: 0,species,image,SpecCode,Genus,Subfamily,Family,Order,Class,SuperClass,source,Folder,Troph,FeedingPath,"
    "Tropical,Temperate,Subtropical,Boreal,Polar,freshwater,saltwater,brackish,NewOrder,Frequency"
)


def make_row(
    image: str, species: str = "", genus: str = "", family: str = "Sparidae", order: str = "Perciformes"
) -> str:
    source = "fishbase" if image.startswith("http") else "inat"
    cells = ["0", "0", species, image, "", genus, "", family, order, "Actinopteri", "", source, family]
    return ",".join([*cells, *[""] * 10, order, ""])


def write_table(folder: Path, *rows: str, name: str = "test.csv") -> Path:
    (folder / "anns").mkdir(parents=True, exist_ok=True)
    path = folder / "anns" / name
    path.write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    return path
