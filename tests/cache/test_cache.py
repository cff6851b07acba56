"""Laws of the caches: cached is uncached, stale is never read, an interruption costs nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from PIL import Image

from taxadiffusion.base.backbone import Backbone
from taxadiffusion.cache import LatentForm, Latents, NameStates, cached_latents, cached_states, encoding, parts
from taxadiffusion.errors import CheckpointError, DataError, NonFiniteError
from taxadiffusion.images import Seen, load_image
from tests.faults.harness import fork
from tests.tiny_base import write_tiny_base

TEXTS = ["", "order: Perciformes", "species: clarkii", "line\u2028separator"]


@dataclass(frozen=True)
class Row:
    path: Path
    box: None = None
    content_box: None = None
    seen: Seen | None = None


class Folder:
    """What the cache asks of a prepared data set."""

    def __init__(self, paths: list[Path], content_hash: str) -> None:
        self.paths, self.content_hash = paths, content_hash

    def __len__(self) -> int:
        return len(self.paths)

    def record(self, row: int) -> Row:
        return Row(self.paths[row])


class Prepared(Folder):
    """One that keeps what its files were when they were prepared."""

    def record(self, row: int) -> Row:
        path = self.paths[row]
        status = path.stat()
        seen = Seen(status.st_size, status.st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        return Row(path, seen=seen)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.load(str(write_tiny_base(tmp_path_factory.mktemp("base"))))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    root = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0)
    paths = []
    for number in range(70):
        path = root / f"{number}.png"
        Image.fromarray(pixels.integers(0, 256, (20, 24, 3), np.uint8)).save(path)
        paths.append(path)
    paths[40].write_bytes(b"no picture")
    return Folder(paths, "pictures-1")


def test_cached_latents_are_the_encoded_pictures(tmp_path: Path, backbone: Backbone, pictures: Folder) -> None:
    latents = cached_latents(tmp_path, pictures, backbone, LatentForm(mirror=True))
    assert (len(latents), latents.num_variants, latents.latent_shape) == (70, 2, (4, 8, 8))
    rows = np.array([3, 69, 3])
    cached, readable = latents.read(rows, np.array([0, 0, 1]))
    images = np.stack([load_image(pictures.paths[row], 16) for row in rows])
    images[2] = images[2][..., ::-1]
    assert cached.dtype == np.float32
    assert readable.all()
    np.testing.assert_allclose(cached, backbone.encode(images).numpy(), rtol=2e-3, atol=2e-3)


def test_an_unreadable_picture_is_reported_and_never_replaced(
    tmp_path: Path, backbone: Backbone, pictures: Folder
) -> None:
    """METHOD, fault 8."""
    latents = cached_latents(tmp_path, pictures, backbone)
    (fault,) = latents.unreadable
    assert (fault.row, fault.path) == (40, str(pictures.paths[40]))
    values, readable = latents.read(np.array([40, 41]), np.array([0, 0]))
    assert readable.tolist() == [False, True]
    assert not values[0].any()


def test_a_second_use_computes_nothing(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """METHOD, fault 10."""
    cached_latents(tmp_path, pictures, backbone)
    cached_states(tmp_path, backbone.text_hash, 77, 16, TEXTS, lambda: backbone.text)
    monkeypatch.setattr(Backbone, "encode", lambda *_: pytest.fail("encoded again"))
    cached_latents(tmp_path, pictures, backbone)
    cached_states(tmp_path, backbone.text_hash, 77, 16, TEXTS, lambda: pytest.fail("encoded again"))


def test_pictures_under_other_labels_are_not_encoded_again(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another order, some left out, one added: what a corrected label or a thinned set is to the cache."""
    encoded: list[int] = []
    encode = Backbone.encode
    monkeypatch.setattr(Backbone, "encode", lambda one, pixels: encoded.append(len(pixels)) or encode(one, pixels))
    whole, form = Prepared(pictures.paths[:40], "first"), LatentForm(mirror=True)
    first = cached_latents(tmp_path / "a", whole, backbone, form)
    assert sum(encoded) == 80
    encoded.clear()
    other = Prepared([*pictures.paths[:38][::-1], pictures.paths[50]], "second")
    found = cached_latents(tmp_path / "a", other, backbone, form)
    assert encoded == [7, 7], "the last batch alone, which holds the new picture, in both variants"
    rows = np.arange(38)
    for variant in (0, 1):
        ours, theirs = (one.read(at, np.full(38, variant))[0] for one, at in ((found, rows), (first, rows[::-1])))
        np.testing.assert_array_equal(ours[:32], theirs[:32])
        np.testing.assert_allclose(ours[32:], theirs[32:], rtol=2e-3, atol=1e-6)  # encoded in another batch
    encoded.clear()
    cached_latents(tmp_path / "a", other, backbone, LatentForm(fit="pad"))
    assert sum(encoded) == 39, "another form is not the same picture"
    encoded.clear()
    faulty = Prepared(pictures.paths[32:45], "with a fault")
    for name in ("third", "fourth"):
        faulty.content_hash = name
        assert [fault.row for fault in cached_latents(tmp_path / "b", faulty, backbone).unreadable] == [8]
    assert encoded == [12, 12], "what could not be read is looked at again"
    cached_latents(tmp_path / "c", pictures, backbone)
    encoded.clear()
    cached_latents(tmp_path / "c", Folder(pictures.paths[:40], "unseen"), backbone)
    assert sum(encoded) == 40, "files of which nothing is known may be others by now"


def test_other_content_is_another_cache(tmp_path: Path, backbone: Backbone, pictures: Folder) -> None:
    cached_latents(tmp_path / "a", pictures, backbone)
    changed = Folder(pictures.paths[:3], "pictures-2")
    assert len(cached_latents(tmp_path / "a", changed, backbone)) == 3
    assert len(cached_latents(tmp_path / "a", pictures, backbone, LatentForm(fit="pad"))) == 70
    assert len(list((tmp_path / "a").iterdir())) == 3
    other = Backbone.load(str(write_tiny_base(tmp_path / "base", seed=1)))
    assert other.vae_hash != backbone.vae_hash
    first = cached_latents(tmp_path / "a", changed, backbone).read(np.arange(3), np.zeros(3, int))[0]
    assert not np.array_equal(
        first, cached_latents(tmp_path / "a", changed, other).read(np.arange(3), np.zeros(3, int))[0]
    )


def test_a_cache_that_was_swapped_or_cut_is_refused(tmp_path: Path, backbone: Backbone, pictures: Folder) -> None:
    few = Folder(pictures.paths[:2], "few")
    cached_latents(tmp_path, few, backbone)
    (folder,) = tmp_path.iterdir()
    other = Folder(pictures.paths[2:4], "other")
    cached_latents(tmp_path / "b", other, backbone)
    (swapped,) = (tmp_path / "b").iterdir()
    shutil.rmtree(swapped)
    shutil.copytree(folder, swapped)
    with pytest.raises(CheckpointError, match="something else"):
        cached_latents(tmp_path / "b", other, backbone)
    with (folder / "latents.f16").open("r+b") as stream:
        stream.truncate(100)
    with pytest.raises(CheckpointError, match="cut short"):
        cached_latents(tmp_path, few, backbone)


def test_an_interrupted_build_goes_on_and_gives_the_same_bits(
    tmp_path: Path, backbone: Backbone, pictures: Folder
) -> None:
    whole = cached_latents(tmp_path / "whole", pictures, backbone)
    done: list[int] = []

    def stop(count: int, _total: int) -> None:
        done.append(count)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_latents(tmp_path / "parts", pictures, backbone, progress=stop)
    resumed = cached_latents(tmp_path / "parts", pictures, backbone, progress=lambda count, _: done.append(count))
    assert done == [32, 64, 70]
    rows = np.arange(70)
    assert np.array_equal(resumed.read(rows, 0 * rows)[0], whole.read(rows, 0 * rows)[0])
    assert resumed.unreadable == whole.unreadable


def bytes_of(folder: Path) -> bytes:
    """Of the one cache below `folder`, with what it says of itself."""
    (cache,) = folder.iterdir()
    assert sorted(path.name for path in cache.iterdir()) == ["cache.json", "images.u64", "latents.f16", "lock"]
    return (cache / "latents.f16").read_bytes() + (cache / "cache.json").read_bytes()


def test_processes_share_the_latents_and_give_the_bytes_of_one(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_latents(tmp_path / "one", pictures, backbone, LatentForm(mirror=True))
    monkeypatch.setattr(parts, "ROWS_PER_PART", 32)
    met = threading.Barrier(2, timeout=60)  # each has begun a part before either may go on
    shares: dict[str, int] = {}

    def work(name: str) -> None:
        def seen(_done: int, _total: int) -> None:
            if name not in shares:
                shares[name] = 1
                met.wait()

        cached_latents(tmp_path / "two", pictures, backbone, LatentForm(mirror=True), progress=seen)

    both = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for one in both:
        one.start()
    for one in both:
        one.join(60)
    assert set(shares) == {"a", "b"}
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "one")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A forked child must not ask its parent's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_killed_process_frees_its_part_and_loses_no_batch(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "_BATCH", 16)
    monkeypatch.setattr(encoding, "_KEEP_S", 0.0)
    monkeypatch.setattr(parts, "ROWS_PER_PART", 32)
    cached_latents(tmp_path / "one", pictures, backbone)

    def killed_in_the_second_part(done: int, _total: int) -> None:
        if done == 48:
            os.kill(os.getpid(), signal.SIGKILL)

    child = fork(
        lambda: cached_latents(tmp_path / "parts", pictures, backbone, progress=killed_in_the_second_part), tmp_path
    )
    assert child.wait(60) == -signal.SIGKILL
    counted: list[int] = []
    cached_latents(tmp_path / "parts", pictures, backbone, progress=lambda done, _: counted.append(done))
    assert counted == [64, 70]
    assert bytes_of(tmp_path / "parts") == bytes_of(tmp_path / "one")


def test_latents_that_are_no_numbers_are_refused(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Backbone, "encode", lambda _, images: torch.full((len(images), 4, 8, 8), 1e6))
    with pytest.raises(NonFiniteError, match=r"rows \[0, 1\]"):
        cached_latents(tmp_path, Folder(pictures.paths[:2], "x"), backbone)
    assert not list(tmp_path.glob("*/cache.json"))


def states(folder: Path, backbone: Backbone, texts: list[str]) -> NameStates:
    return cached_states(folder, backbone.text_hash, 77, 16, texts, lambda: backbone.text)


def test_cached_states_are_the_text_encoders(tmp_path: Path, backbone: Backbone) -> None:
    cached = states(tmp_path, backbone, TEXTS)
    asked = [TEXTS[2], TEXTS[0], TEXTS[2], TEXTS[3]]
    torch.testing.assert_close(cached(asked), backbone.text(asked), rtol=2e-3, atol=2e-3)
    assert (cached.num_tokens, cached.width, cached.content_hash) == (77, 16, backbone.text.content_hash)


def test_names_are_added_and_old_states_keep_their_bits(tmp_path: Path, backbone: Backbone) -> None:
    first = states(tmp_path, backbone, TEXTS[:2])(TEXTS[:2])
    grown = states(tmp_path, backbone, [*TEXTS[2:], *TEXTS[:2]])
    assert len(grown) == 4
    assert torch.equal(grown(TEXTS[:2]), first)


def test_a_torn_last_line_is_written_again(tmp_path: Path, backbone: Backbone) -> None:
    whole = states(tmp_path, backbone, TEXTS)(TEXTS)
    (folder,) = tmp_path.iterdir()
    lines = (folder / "texts.jsonl").read_bytes()
    (folder / "texts.jsonl").write_bytes(lines[:-4])
    again = states(tmp_path, backbone, TEXTS)
    torch.testing.assert_close(again(TEXTS), whole, rtol=2e-3, atol=2e-3)
    assert (folder / "texts.jsonl").read_bytes() == lines


def test_an_unknown_name_and_a_cut_file_are_errors(tmp_path: Path, backbone: Backbone) -> None:
    with pytest.raises(DataError, match="'genus: Nemo'"):
        states(tmp_path, backbone, TEXTS)(["genus: Nemo"])
    (folder,) = tmp_path.iterdir()
    (folder / "states.f16").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cut short"):
        states(tmp_path, backbone, TEXTS)


def test_another_text_encoder_is_another_cache(tmp_path: Path, backbone: Backbone) -> None:
    states(tmp_path / "names", backbone, TEXTS)
    other = Backbone.load(str(write_tiny_base(tmp_path / "base", seed=1)))
    assert not torch.equal(
        states(tmp_path / "names", other, TEXTS)(TEXTS), states(tmp_path / "names", backbone, TEXTS)(TEXTS)
    )


def test_an_empty_set_is_an_error(tmp_path: Path, backbone: Backbone) -> None:
    with pytest.raises(DataError, match="no images"):
        cached_latents(tmp_path, Folder([], "empty"), backbone)


def test_opening_never_builds(tmp_path: Path, backbone: Backbone, pictures: Folder) -> None:
    from taxadiffusion.cache import LatentKey

    with pytest.raises(CheckpointError, match="missing"):
        Latents(tmp_path, LatentKey(pictures.content_hash, backbone.vae_hash, 16, "crop", 1))


def test_the_next_pictures_are_decoded_while_these_are_encoded(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding begins with the first batch read, and goes on only once a picture of the next one is on its way."""
    next_begun, encode, seen = Event(), Backbone.encode, pictures.record

    def record(row: int) -> Row:
        if row >= 32:
            next_begun.set()
        return seen(row)

    def waits(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        assert next_begun.wait(10), "nothing is decoded meanwhile"
        return encode(self, images)

    monkeypatch.setattr(pictures, "record", record)
    monkeypatch.setattr(Backbone, "encode", waits)
    assert len(cached_latents(tmp_path, pictures, backbone, num_threads=2)) == 70


def test_a_crash_costs_no_more_than_the_last_seconds(
    tmp_path: Path, backbone: Backbone, pictures: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is on disk is written down by time, not batch by batch."""
    now = [0.0]
    monkeypatch.setattr("taxadiffusion.cache.encoding.time.monotonic", lambda: now[0])
    written: list[int] = []

    def tick(done: int, _total: int) -> None:
        (folder,) = tmp_path.iterdir()
        path = folder / "parts" / "0-70.json"
        written.append(json.loads(path.read_text())["done"] if path.exists() else 0)
        now[0] += 6.0 if done == 32 else 20.0

    cached_latents(tmp_path, pictures, backbone, progress=tick)
    assert written == [0, 0, 70]  # after 0, 6 and 26 seconds


def test_a_gpu_encodes_as_many_as_half_of_its_free_memory_holds(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert backbone.encode_batch(512) == 16
    monkeypatch.setattr(Backbone, "device", torch.device("cuda"))
    found = {}
    for free in (10**6, 10**8, 10**9, 10**12):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2 * free))
        found[free] = backbone.encode_batch(512)
    assert found[10**6] == 1
    assert found[10**12] == 256
    assert found[10**9] == pytest.approx(10 * found[10**8], abs=10)
