"""The first N examples of a data set."""

from __future__ import annotations

from collections.abc import Sequence

from gradcam_bench.data.example import Dataset, Example


class FirstN:
    """The first N examples of a data set.

    Args:
        dataset: the whole data set.
        limit: number of examples to keep, N.
    """

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self.dataset, self.class_names = dataset, dataset.class_names
        self.image_ids: Sequence[str] = list(dataset.image_ids)[:limit]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Example:
        """Return example `index` of the whole data set."""
        return self.dataset[index]

    def fingerprint(self) -> str:
        """Return the fingerprint of the whole data set, of which `limit` is no part."""
        return self.dataset.fingerprint()
