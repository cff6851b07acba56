"""TreeOfLife sets of a few pictures."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

HEADER = (
    "split,treeoflife_id,eol_content_id,eol_page_id,bioscan_part,bioscan_filename,inat21_filename,inat21_cls_name,"
    "inat21_cls_num,kingdom,phylum,class,order,family,genus,species,common"
)


def write_shard(path: Path, samples: Mapping[str, Mapping[str, str | bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for key, entries in samples.items():
            for suffix, content in entries.items():
                data = content.encode() if isinstance(content, str) else content
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))


def write_catalog(folder: Path, *rows: str) -> None:
    (folder / "catalog.csv").write_text("\n".join([HEADER, *rows]) + "\n")
