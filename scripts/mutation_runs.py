"""Which tests run which lines, and whether they notice a mutation: pytest in forked processes.

A process that has imported torch forks for every question, so that no answer pays for the imports
and none sees what another changed. The package and its tests lie in a copied tree.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

Lines = dict[str, list[int]]
"""Lines by module, as a path below the tree."""
CALLS = 30
"""Calls of a function that are followed line by line in one test: to follow all takes too long."""
QUIET = [
    "-o", "addopts=--import-mode=importlib", "-q", "-p", "no:cacheprovider", "--no-header",
    "--tb=no", "-m", "not slow and not gpu",
]  # fmt: skip


def in_fork(work: Callable[[], object], timeout: float) -> tuple[str, float]:
    """Run something in a forked process without output.

    Args:
        work: what to do; it hands results over as files.
        timeout: seconds after which the process and what it started are killed.

    Returns:
        "done", "failed" (an exception or a crash) or "timeout", and the seconds it took.
    """
    begin = time.monotonic()
    child = os.fork()
    if child == 0:
        os.setsid()
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    while time.monotonic() - begin < timeout:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return ("failed" if status else "done"), time.monotonic() - begin
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timeout", time.monotonic() - begin


class LineRecorder:
    """A pytest plugin that notes the lines of the package that each test runs, and its time.

    Lines of a fixture that several tests share count for each of them.
    """

    def __init__(self, package: Path, target: Path) -> None:
        self.package, self.target = str(package), target
        self.calls: Counter[Any] = Counter()
        self.current: set[tuple[str, int]] = set()
        self.shared: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
        self.tests: dict[str, dict[str, Any]] = {}
        self.failed: set[str] = set()

    def trace(self, frame: Any, event: str, _arg: object) -> Any:
        """Follow the frames of the package, and only those."""
        if not frame.f_code.co_filename.startswith(self.package):
            return None
        if event == "call":
            self.calls[frame.f_code] += 1
            if self.calls[frame.f_code] > CALLS:
                return None
        if event in ("line", "call"):
            self.current.add((frame.f_code.co_filename, frame.f_lineno))
        return self.trace

    @pytest.hookimpl(hookwrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[None]:
        """Keep the lines of shared fixtures apart."""
        outside, self.current = self.current, set()
        yield
        if fixturedef.scope != "function":
            self.shared[fixturedef.baseid, fixturedef.argname] |= self.current
        self.current |= outside

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        """Trace one test from its fixtures to their end."""
        self.current, begin = set(), time.monotonic()
        self.calls.clear()
        threading.settrace(self.trace)
        sys.settrace(self.trace)
        yield
        sys.settrace(None)
        for name, definitions in item._fixtureinfo.name2fixturedefs.items():
            for definition in definitions:
                self.current |= self.shared.get((definition.baseid, name), set())
        lines: Lines = defaultdict(list)
        root = len(self.package.rpartition(os.sep)[0]) + 1
        for module, line in sorted(self.current):
            lines[module[root:]].append(line)
        seconds = time.monotonic() - begin
        self.tests[item.nodeid] = {"seconds": seconds, "lines": lines}
        if item.nodeid in self.failed:
            del self.tests[item.nodeid]
        self.target.write_text(json.dumps(self.tests))

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Remember what fails without any mutation; it cannot notice one."""
        if report.failed:
            self.failed.add(report.nodeid)


def record(tree: Path, test_file: str, target: Path) -> None:
    """Write a JSON of what each test of a file runs; call this in a fork."""
    recorder = LineRecorder(tree / "gradcam_bench", target)
    pytest.main([*QUIET, test_file], plugins=[recorder])


class _Chosen:
    """A pytest plugin that runs some tests only, in a given order, until one fails."""

    def __init__(self, tests: Sequence[str], report: Path) -> None:
        self.order = {name: i for i, name in enumerate(tests)}
        self.report = report

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self.order]
        items.sort(key=lambda item: self.order[item.nodeid])

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.report.write_text(f"{report.nodeid} (import)")

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.report.write_text(report.nodeid)


def notice(tests: Sequence[str], report: Path) -> None:
    """Run tests until one fails, and write its name into a file; call this in a fork."""
    files = list(dict.fromkeys(name.partition("::")[0] for name in tests))
    code = pytest.main([*QUIET, "-x", *files], plugins=[_Chosen(tests, report)])
    if code and not report.exists():
        report.write_text(f"pytest ended with {code!r}")
