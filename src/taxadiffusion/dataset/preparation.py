"""The steps from a source's rows to a prepared data set: list, judge, verify, write."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from taxadiffusion.dataset.catalogue_reader import CatalogueReader
from taxadiffusion.dataset.changes import changed_pictures, refuse_changed
from taxadiffusion.dataset.columns import IMAGES, QUARANTINE, SPLITS, TAXONOMY, UNPACKED
from taxadiffusion.dataset.duplicates import MAX_LAYOUT_DISTANCE, find_repeats, near_duplicates
from taxadiffusion.dataset.fixes import FixedReader
from taxadiffusion.dataset.judge import (
    TWO_LABELS,
    judge_folders,
    judge_fraction,
    judge_listing,
    place,
    refuse,
    same_key,
)
from taxadiffusion.dataset.listing import ROWS_PER_BATCH, Listing, Quarantine
from taxadiffusion.dataset.prepared import PreparedDataset
from taxadiffusion.dataset.report import PrepareProgress, PrepareReport, PrepareSettings
from taxadiffusion.dataset.shards import Shard, await_first, await_parts
from taxadiffusion.dataset.split import assign_splits, groups_across_splits
from taxadiffusion.dataset.verify import SetPart, part_name
from taxadiffusion.dataset.workers import verify_parts
from taxadiffusion.dataset.workspace import publish
from taxadiffusion.dataset.write import MAX_EXAMPLES, gather_facts, read_layouts, write_images
from taxadiffusion.errors import DataError
from taxadiffusion.images import layout_distance
from taxadiffusion.names import RANKS, kinds
from taxadiffusion.readers import Reader

OnPrepared = Callable[[PrepareProgress], None]


@dataclass
class Preparation:
    """One run of `prepare`, its steps in order."""

    reader: Reader
    source: Path
    out: Path
    work: Path
    shared: Path
    """The work folder of process 0, where the parts are."""
    settings: PrepareSettings
    num_workers: int
    shard: Shard
    on_progress: OnPrepared

    def run(self) -> PrepareReport:
        with Quarantine(self.work / QUARANTINE) as quarantine:
            listing = self._list(quarantine)
            report = self._empty_report(listing)
            if (self.out / IMAGES).is_file():
                found = self._existing(report)
                self._refuse_changed(listing, quarantine)
                return found
            if not len(listing):
                judge_fraction(listing.num_rows, quarantine, self.settings.max_bad_fraction, report.reader_counts)
            repeated, two_labels, contradictions = judge_listing(listing, allow=self.settings.allow_contradictions)
            self._quarantine(listing, two_labels, quarantine)
            report.contradictions_allowed = contradictions
            report.repeated_rows = int(repeated.sum())
            results = self._verify(listing) if self.settings.verify else None
            facts = gather_facts(listing, results, repeated | two_labels, quarantine)
            kept = self._without_duplicates(listing, facts.content_keys, facts.usable, quarantine, report)
            judge_fraction(listing.num_rows, quarantine, self.settings.max_bad_fraction, report.reader_counts)
            splits = np.zeros(len(listing), np.int8)
            splits[kept] = assign_splits(
                listing.splits[kept], listing.taxon_ids[kept], listing.groups[kept], self.settings.val_fraction
            )
            if results is not None:
                candidates = np.flatnonzero(kept & facts.has_hash)
                self._near_duplicates(listing, results, candidates, facts.hashes, splits, report)
            grouped = kept & listing.has_group
            report.groups_across_splits = groups_across_splits(listing.groups[grouped], splits[grouped])
            report.quarantined, report.reasons = len(quarantine), dict(quarantine.reasons.most_common())
        self._write(listing, results, kept, splits, report)
        return report

    def help(self) -> PrepareReport:
        """What a process other than the first does: its share of the parts, then wait."""
        with Quarantine(self.work / QUARANTINE) as quarantine:
            listing = self._list(quarantine)
        if self.settings.verify and not (self.out / IMAGES).is_file():
            try:
                self._verify(listing)
            except FileNotFoundError:
                if not (self.out / IMAGES).is_file():  # else process 0 took this share over and is done
                    raise
        await_first(self.out, self.shared)
        return self._existing(self._empty_report(listing))

    def _list(self, quarantine: Quarantine) -> Listing:
        listing = Listing(self.reader.ranks, self.work / "listing.arrow")
        listing.read(
            self.reader, quarantine, self.settings.limit, lambda n: self.on_progress(PrepareProgress("list", n, None))
        )
        judge_folders(quarantine)
        return listing

    def _empty_report(self, listing: Listing) -> PrepareReport:
        asked = {
            "options": {key: str(value) for key, value in self.settings.options.items()},
            "val_fraction": self.settings.val_fraction,
            "limit": self.settings.limit,
            "fix": self.settings.fix.read_text(encoding="utf-8") if self.settings.fix else None,
            "allow_contradictions": self.settings.allow_contradictions,
            "verify": self.settings.verify,
        }
        if self.settings.follow_links:  # absent from the reports of earlier versions, as is the next
            asked["follow_links"] = True
        if self.settings.catalogue:
            asked["catalogue"] = str(self.settings.catalogue)
        report = PrepareReport(
            source=str(self.source),
            root=str(self.reader.root.absolute()),
            format=self.reader.name,
            ranks=list(self.reader.ranks),
            settings=asked,
            listing_hash=listing.content_hash,
            rows=listing.num_rows,
            reader_counts=dict(kinds(getattr(self.reader, "counts", {}))),
        )
        fixed = self.reader.reader if isinstance(self.reader, CatalogueReader) else self.reader
        if isinstance(fixed, FixedReader):
            report.fixes_applied = {str(rule): count for rule, count in fixed.fixes.applied.items()}
        return report

    def _existing(self, asked: PrepareReport) -> PrepareReport:
        """The data set that is there already, if it is the one asked for."""
        found = PrepareReport.read(self.out)
        for name in ("format", "ranks", "settings", "root", "listing_hash"):
            if getattr(found, name) != getattr(asked, name):
                what = "the rows" if name == "listing_hash" else name
                raise DataError(
                    f"{self.out}: holds a data set prepared from something else ({what} differ); "
                    "give another folder, or remove this one first"
                )
        return found

    def _refuse_changed(self, listing: Listing, quarantine: Quarantine) -> None:
        """Raises `DataError` where pictures are no longer those that were prepared; nothing of the set is changed."""
        if not self.settings.verify or not PreparedDataset.open(self.out).keeps_files_seen:
            return
        self.on_progress(PrepareProgress("verify", 0, len(listing)))
        changes = changed_pictures(
            listing,
            self.out,
            self.reader.root,
            self.work,
            lambda n: self._progress("verify", n, len(listing)),
            follow_links=self.settings.follow_links,
        )
        refuse_changed(changes, self.out, len(listing), quarantine)

    def _progress(self, phase: str, done: int, total: int) -> None:
        if done % ROWS_PER_BATCH == 0 or done == total:
            self.on_progress(PrepareProgress(phase, done, total))

    def _quarantine(self, listing: Listing, rows: npt.NDArray[np.bool_], quarantine: Quarantine) -> None:
        for row in np.flatnonzero(rows).tolist():
            where, image = place(listing, row)
            table, _, number = where.rpartition(":")
            quarantine.add(table, int(number), image, TWO_LABELS)

    def _verify(self, listing: Listing) -> list[Path]:
        parts = list(self._parts(listing))
        done = 0
        self.on_progress(PrepareProgress("verify", 0, len(listing)))
        mine, others = self.shard.share(parts), self.shard.others(parts)
        awaited = await_parts(others, self.num_workers) if self.shard.number == 0 else iter(())
        for num_rows in chain(verify_parts(mine, min(self.num_workers, len(mine))), awaited):
            done += num_rows
            self.on_progress(PrepareProgress("verify", done, len(listing)))
        return [Path(part.result) for part in parts]

    def _parts(self, listing: Listing) -> Iterator[SetPart]:
        folder = self.shared / "verified"
        folder.mkdir(parents=True, exist_ok=True)
        root = os.path.realpath(self.reader.root)
        file = listing.batches()
        for number in range(file.num_record_batches):
            batch = file.get_batch(number)
            images, members = batch.column("image").to_pylist(), batch.column("member").to_pylist()
            follow = self.settings.follow_links
            result = str(folder / part_name(number, images, members, follow))
            yield SetPart(root, tuple(images), tuple(members), str(self.shared), result, follow)

    def _without_duplicates(
        self,
        listing: Listing,
        content_keys: npt.NDArray[np.uint64],
        usable: npt.NDArray[np.bool_],
        quarantine: Quarantine,
        report: PrepareReport,
    ) -> npt.NDArray[np.bool_]:
        """The usable rows that are the first of their picture. Equal files with two labels are a contradiction."""
        repeats = find_repeats(content_keys, listing.taxon_ids, usable)
        if not self.settings.allow_contradictions:
            refuse(listing, [], repeats.contradicting)
        two_labels = same_key(content_keys, repeats.contradicting) & usable
        self._quarantine(listing, two_labels, quarantine)
        report.contradictions_allowed += len(repeats.contradicting)
        duplicates = repeats.repeated & ~two_labels
        report.duplicate_images = int(duplicates.sum())
        return usable & ~two_labels & ~duplicates

    def _near_duplicates(
        self,
        listing: Listing,
        results: list[Path],
        rows: npt.NDArray[np.int64],
        hashes: npt.NDArray[np.uint64],
        splits: npt.NDArray[np.int8],
        report: PrepareReport,
    ) -> None:
        pairs = rows[near_duplicates(hashes[rows], splits[rows])]
        layouts = [read_layouts(results, side) for side in pairs.T]
        pairs = pairs[layout_distance(*layouts) <= MAX_LAYOUT_DISTANCE]
        report.near_duplicates_across_splits = len(pairs)
        for a, b in pairs[:MAX_EXAMPLES].tolist():
            report.near_duplicate_examples.append([place(listing, a)[1], place(listing, b)[1]])

    def _write(
        self,
        listing: Listing,
        results: list[Path] | None,
        kept: npt.NDArray[np.bool_],
        splits: npt.NDArray[np.int8],
        report: PrepareReport,
    ) -> None:
        done = self.work / "done"
        if done.is_dir():  # of a run that was stopped before it could publish
            if (done / UNPACKED).is_dir():
                (done / UNPACKED).replace(self.work / UNPACKED)
            shutil.rmtree(done)
        done.mkdir()
        written = write_images(
            done, listing, results, kept, splits, lambda n: self.on_progress(PrepareProgress("write", n, len(listing)))
        )
        report.images_with_content_box = written.num_content_boxes
        report.damaged_metadata = dict(written.damaged_metadata.most_common())
        report.damaged_metadata_examples = written.damaged_examples
        taxonomy = listing.taxonomy
        taxonomy.write(done / TAXONOMY)
        report.images = int(kept.sum())
        report.images_per_split = {split: int((splits[kept] == code).sum()) for code, split in enumerate(SPLITS)}
        report.taxa_per_rank = {rank: len(taxonomy.at_rank(rank)) for rank in taxonomy.ranks}
        at_rank = Counter(taxonomy.rank_codes[listing.taxon_ids[kept]].tolist())
        report.images_at_rank = {RANKS[code]: count for code, count in sorted(at_rank.items())}
        report.taxonomy_hash = taxonomy.content_hash
        report.content_hash = hashlib.sha256(f"{taxonomy.content_hash}\n{written.content_hash}".encode()).hexdigest()
        (self.work / QUARANTINE).replace(done / QUARANTINE)
        if (self.work / UNPACKED).is_dir():
            (self.work / UNPACKED).replace(done / UNPACKED)
        report.write(done)
        publish(done, self.out)
