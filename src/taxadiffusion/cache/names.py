"""Token states of names and prompts: computed once, memory-mapped, added to and never changed."""

# Letters: N texts, T tokens, D width.
from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from taxadiffusion.base.text import TextEncoder
from taxadiffusion.cache.files import disk_faults, sole_writer
from taxadiffusion.errors import CheckpointError, DataError
from taxadiffusion.files import joined_hash

_BATCH = 64
_STATES, _TEXTS = "states.f16", "texts.jsonl"


class NameStates:
    """Memory-mapped float16 token states (N, T, D) by text; a `TokenStates` that needs no text encoder."""

    def __init__(self, folder: Path, content_hash: str, num_tokens: int, width: int) -> None:
        self.content_hash = content_hash
        self.num_tokens = num_tokens
        self.width = width
        self._folder = folder
        self._rows = {text: row for row, text in enumerate(_read_texts(folder))}
        if not self._rows:  # nothing can be mapped
            self._map: NDArray[np.float16] = np.zeros((0, num_tokens, width), np.float16)
            return
        shape = (len(self._rows), num_tokens, width)
        path = folder / _STATES
        if not path.is_file() or path.stat().st_size < 2 * int(np.prod(shape)):
            raise CheckpointError(f"{path} is cut short; delete {folder} and the states are computed anew")
        self._map = np.memmap(path, np.float16, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """(N, T, D) float32 on the CPU. Raises `DataError` for a text that is not in the cache."""
        unknown = [text for text in texts if text not in self._rows]
        if unknown:
            raise DataError(f"no token states of {unknown[0]!r} in {self._folder}; it was built for other taxa")
        states = self._map[[self._rows[text] for text in texts]].astype(np.float32)
        # Into torch's own memory: matrix products of unaligned memory may differ in their last bit from run to run.
        return torch.from_numpy(states).clone()


def cached_states(
    cache_dir: Path,
    text_hash: str,
    num_tokens: int,
    width: int,
    texts: Sequence[str],
    encoder: Callable[[], TextEncoder],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> NameStates:
    """The states of the given texts, from the cache or else computed into it; `encoder` is asked for only if needed.

    text_hash: of the text encoder's weights and tokenizer; with `num_tokens` it names the cache. Texts are added batch
    by batch, so an interrupted computation goes on where it stopped. `progress(done, total)` counts missing texts.
    Raises `CheckpointError` when the disk is full.
    """
    folder = _folder(cache_dir, text_hash, num_tokens, width)
    with sole_writer(folder):
        known = set(_read_texts(folder))
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            _append(folder, batch, encoder()(batch).cpu().numpy().astype(np.float16), len(known) + start)
            if progress:
                progress(start + len(batch), len(missing))
    return NameStates(folder, text_hash, num_tokens, width)


def states_to_come(
    cache_dir: Path, text_hash: str, num_tokens: int, width: int, texts: Sequence[str]
) -> tuple[Path, int]:
    """Where `cached_states` will write, and how many bytes."""
    folder = _folder(cache_dir, text_hash, num_tokens, width)
    num_missing = len(set(texts) - set(_read_texts(folder)))
    return folder, num_missing * num_tokens * width * np.dtype(np.float16).itemsize


def _folder(cache_dir: Path, text_hash: str, num_tokens: int, width: int) -> Path:
    return cache_dir / f"names-{joined_hash((text_hash, str(num_tokens), str(width)))[:20]}"


def _append(folder: Path, texts: Sequence[str], states: NDArray[np.float16], rows_before: int) -> None:
    """States first, then the lines that make them count: a crash between the two leaves unnamed bytes, written over."""
    path = folder / _STATES
    with disk_faults(folder, states.nbytes), path.open("r+b" if path.exists() else "w+b") as stream:
        stream.seek(rows_before * states[0].nbytes)
        stream.write(states.tobytes())
        stream.flush()
        os.fsync(stream.fileno())
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    with disk_faults(folder, len(lines)), (folder / _TEXTS).open("r+b" if rows_before else "w+b") as stream:
        stream.seek(len(_whole_lines(stream.read())))
        stream.truncate()
        stream.write(lines.encode())
        stream.flush()
        os.fsync(stream.fileno())


def _read_texts(folder: Path) -> list[str]:
    path = folder / _TEXTS
    if not path.is_file():
        return []
    return [json.loads(line) for line in _whole_lines(path.read_bytes()).decode().splitlines()]


def _whole_lines(data: bytes) -> bytes:
    """Without a last line that a crash cut short."""
    return data[: data.rfind(b"\n") + 1]
