"""Processes that localize maps while the device computes the next batch."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gradcam_bench.names import Row


@dataclass(frozen=True)
class Located:
    """The localization columns of a batch of N images, which may still be under computation.

    Attributes:
        result: waits for them and returns, for each image, a row per cell.
    """

    result: Callable[[], list[list[Row]]]

    @classmethod
    def now(cls, rows: list[list[Row]]) -> Located:
        """Wrap columns that are already computed."""
        return cls(lambda: rows)


@contextmanager
def processes(count: int) -> Iterator[Executor | None]:
    """Start `count` processes, of one thread each, that localize maps; yield None for 0.

    They are spawned, not forked: a CUDA context does not survive a fork.
    """
    if not count:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
