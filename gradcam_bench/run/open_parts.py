"""The parts that a process is computing: rows wait here until their part's last image is done."""

from __future__ import annotations

import time
from collections.abc import Iterable

from gradcam_bench.errors import UserError
from gradcam_bench.names import Row
from gradcam_bench.run.batch import Scored
from gradcam_bench.run.batches import Item
from gradcam_bench.store.parts import Store


class OpenParts:
    """Collects rows and pictures, and stores each part when its last image is done.

    Args:
        store: the run's output folder.
        parts: numbers of the parts to compute; their images are added in the same order.
        max_errors: the share of the run's images that may be broken, in [0, 1].
    """

    def __init__(self, store: Store, parts: Iterable[int], max_errors: float) -> None:
        self.store, self.max_errors = store, max_errors
        self.waiting = {part: store.images_of(part)[-1] for part in parts}
        self._rows: dict[int, list[Row]] = {}
        self._pictures: dict[int, list[Row]] = {}
        self._broken: dict[int, list[Item]] = {}
        self._started = time.perf_counter()

    def add(self, batch: Scored) -> None:
        """Take a scored batch, and store the parts that it completes.

        Raises:
            UserError: too many examples are broken. What is stored stays.
        """
        place = {item.image_id: item.index // self.store.part_size for item in batch.items}
        for picture in batch.gallery:
            self._pictures.setdefault(place[picture["image_id"]], []).append(picture)
        for item, rows in zip(batch.items, batch.rows(), strict=True):
            part = place[item.image_id]
            self._rows.setdefault(part, []).extend(rows)
            if item.error is not None:
                self._broken.setdefault(part, []).append(item)
            if item.index == self.waiting[part]:
                self._close(part)
        self.tolerate()

    def _close(self, part: int) -> None:
        now = time.perf_counter()
        files = [item.broken_file for item in self._broken.pop(part, []) if item.broken_file]
        self.store.write_part(
            part,
            self._rows.pop(part),
            self._pictures.pop(part, []),
            seconds=now - self._started,
            broken_files=files,
        )
        del self.waiting[part]
        self._started = now

    def tolerate(self) -> None:
        """Stop where the whole run, all shards and earlier processes together, has too many errors.

        Raises:
            UserError: more examples are broken than `max_errors` tolerates.
        """
        own = [item for items in self._broken.values() for item in items]
        limit = self.max_errors * self.store.n_images
        if len(own) + self.store.errors(without=self.waiting) <= limit:
            return
        total = len(own) + self.store.recount_errors(without=self.waiting)
        if total > limit:
            first = own[0].error if own else self.store.first_error()
            raise UserError(
                f"{total} of {self.store.n_images} examples are broken, more than max_errors="
                f"{self.max_errors:g} tolerates. The first: {first} Finished parts are kept; mend "
                "the files or raise max_errors, then run again (retry_errors=true tries all of "
                "them again)."
            )
