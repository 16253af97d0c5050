"""Change the package at random places and see whether the tests notice.

    nice -n 10 python scripts/mutate.py n=200 seed=1
    nice -n 10 python scripts/mutate.py n=50 seed=2 modules=localization,models/folding

copies the package and its tests to a temporary folder, notes which test runs which line, draws n
mutations (scripts/mutations.py) and runs, for each, the tests of its folder (and those of TESTS)
that run the line, the quickest first and `seconds` of them at most. Writes docs/mutation.csv and,
with the reasons given in docs/mutation_equivalent.csv, docs/mutation.md. A run that was stopped
goes on where it was: of the mutations of the same seed in the CSV only survivors are tried again,
and which test runs which line is kept in `cache` while neither its file nor the package changes.
It is too long for the continuous integration.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections import defaultdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from mutation_page import page
from mutation_runs import in_fork, notice, record
from mutations import Mutation, compiles, mutations

ROOT = Path(__file__).parents[1]
CORE = "cam,models/folding,models/prepare,models/layers,localization,faithfulness,store,run"
TESTS = {
    "store": ["tests/analysis/test_groups.py"],
    "localization": ["tests/run/test_localization_columns.py"],
    "models": ["tests/cam/test_gradcam.py"],
    "faithfulness": ["tests/run/test_degenerate.py"],
}
"""Test files of other folders that speak of a folder as well, by folder."""
HEAVY = (
    "torch", "torchvision", "timm", "captum", "pytorch_grad_cam", "torchcam", "cv2", "hydra",
    "pandas", "pyarrow.parquet", "scipy.stats", "numba", "skimage.morphology", "onnxruntime",
    "seaborn", "PIL.Image", "tqdm", "safetensors.torch", "onnxscript",
)  # fmt: skip
"""What the tests import that is not ours: imported once, before forking."""
CACHE = Path(tempfile.gettempdir()) / "gradcam_bench_lines"
RECORDING = 40
"""Seconds for which the tests of one file are traced; those not reached notice nothing."""
COLUMNS = (
    "seed", "module", "line", "function", "kind", "before", "after", "result", "noticed_by",
    "tests", "seconds",
)  # fmt: skip
SIMPLE = {"operator", "constant", "condition", "bound"}
"""Three of four mutations drawn are of these kinds; the others leave something out."""


def copied_tree(folder: Path) -> Path:
    """Copy what the tests need, and let imports find the copy, here and in child processes."""
    tree = folder / "tree"
    ignored = shutil.ignore_patterns("__pycache__", ".git", ".*_cache", ".hypothesis", "outputs")
    shutil.copytree(ROOT, tree, ignore=ignored)
    os.chdir(tree)
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # they want to be imported by pytest
    sys.dont_write_bytecode = True
    sys.path[:] = [str(tree), *(place for place in sys.path if Path(place).resolve() != ROOT)]
    return tree


def import_heavy() -> None:
    """Import other people's packages; ours are imported in the forks only."""
    for name in HEAVY:
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"left out: {error}")


def chosen_modules(tree: Path, names: str) -> list[str]:
    """Return the modules of folders and single modules of the package, as paths."""
    found = []
    for name in names.split(","):
        place = tree / "gradcam_bench" / name
        paths = sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        found += [str(path.relative_to(tree)) for path in paths]
    return found


def test_files(tree: Path, module: str) -> list[str]:
    """Return the test files that belong to a module: its namesake's, its folder's, TESTS."""
    folder = module.split("/")[1]
    own = sorted(str(path.relative_to(tree)) for path in (tree / "tests" / folder).glob("test_*"))
    named = f"tests/{folder}/test_{Path(module).stem}.py"
    return list(
        dict.fromkeys([name for name in own if name == named] + own + TESTS.get(folder, []))
    )


def draw(tree: Path, modules: list[str], n: int, seed: int) -> list[tuple[str, Mutation]]:
    """Draw n mutations that compile, of different places."""
    by_simple: dict[bool, list[tuple[str, Mutation]]] = defaultdict(list)
    for module in modules:
        for change in mutations((tree / module).read_text()):
            by_simple[change.kind in SIMPLE].append((module, change))
    generator = random.Random(seed)
    drawn: list[tuple[str, Mutation]] = []
    places = set()
    while len(drawn) < n:
        module, change = generator.choice(by_simple[generator.random() < 0.75])
        place = (module, change.start, change.end)
        if place not in places and compiles(change, (tree / module).read_text()):
            places.add(place)
            drawn.append((module, change))
    return drawn


def recorded(tree: Path, files: list[str], cache: Path, most: float) -> dict[str, dict[str, Any]]:
    """Return what each test of the files runs, from the cache where the package is the same."""
    sources = b"".join(path.read_bytes() for path in sorted(tree.glob("gradcam_bench/**/*.py")))
    cache.mkdir(parents=True, exist_ok=True)
    targets = {}
    for name in files:
        key = hashlib.sha256(sources + (tree / name).read_bytes()).hexdigest()[:16]
        targets[name] = cache / f"{Path(name).parent.name}-{Path(name).stem}-{key}.json"

    def record_all() -> None:
        importlib.import_module("gradcam_bench.run.loop")  # once for all files
        for name, target in targets.items():
            if not target.exists():
                in_fork(partial(record, tree, name, target), most)

    in_fork(record_all, most * len(files))
    tests: dict[str, dict[str, Any]] = {}
    for name, target in targets.items():
        if target.exists():
            tests |= json.loads(target.read_text())
        else:
            print(f"{name}: no test passed within {most:.0f} s, so none can notice anything")
    print(f"{len(tests)} tests of {len(files)} files can notice mutations", flush=True)
    return tests


def selected(
    module: str, change: Mutation, files: list[str], tests: dict[str, dict[str, Any]], most: float
) -> list[str]:
    """Return the tests that run a mutation's line, the quickest first, up to `most` seconds.

    Where none does (a line that runs on import, or compiled by numba), every test that runs the
    module stands in.
    """
    mine = {
        n: t for n, t in tests.items() if n.partition("::")[0] in files and module in t["lines"]
    }
    lines = range(change.line, change.line + change.before.count("\n") + 1)
    exact = {n: t for n, t in mine.items() if set(lines) & set(t["lines"][module])}
    found: list[str] = []
    total = 0.0
    place = {name: i for i, name in enumerate(files)}
    quick = sorted(
        (exact or mine).items(),
        key=lambda item: (item[1]["seconds"], place[item[0].partition("::")[0]]),
    )
    for name, test in quick:
        if total > most:
            break
        total += test["seconds"]
        found.append(name)
    return found


def try_out(
    tree: Path, module: str, change: Mutation, names: list[str], limit: float
) -> dict[str, Any]:
    """Write a mutation into the copied tree, run the tests on it, and put the module back."""
    path, report = tree / module, tree.parent / "report.txt"
    source, times = path.read_text(), path.stat()
    report.unlink(missing_ok=True)
    path.write_text(change.apply(source))
    try:
        ended, seconds = in_fork(partial(notice, names, report), limit) if names else ("done", 0.0)
    finally:
        path.write_text(source)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    by = report.read_text() if report.exists() else ""
    if ended == "failed" and not by:
        by = "the process crashed"
    result = "timeout" if ended == "timeout" else "noticed" if by else "survived"
    return {
        "module": module, "line": change.line, "function": change.function, "kind": change.kind,
        "before": change.before, "after": change.after, "result": result,
        "noticed_by": by, "tests": len(names), "seconds": round(seconds, 1),
    }  # fmt: skip


def main(arguments: list[str]) -> None:
    given = {"n": "200", "seed": "0", "modules": CORE, "seconds": "30", "until": "23:59"}
    given |= {"csv": str(ROOT / "docs" / "mutation.csv"), "cache": str(CACHE)}
    given |= dict(argument.split("=", 1) for argument in arguments)
    with tempfile.TemporaryDirectory() as folder:
        tree = copied_tree(Path(folder))
        import_heavy()
        modules = chosen_modules(tree, given["modules"])
        drawn = draw(tree, modules, int(given["n"]), int(given["seed"]))
        files = list(dict.fromkeys(f for m, _ in drawn for f in test_files(tree, m)))
        tests = recorded(tree, files, Path(given["cache"]), RECORDING)
        lines = _tried(Path(given["csv"]), given["seed"], drawn)
        for i, (module, change) in enumerate(drawn):
            if i < len(lines) and lines[i]["result"] != "survived":
                continue
            if datetime.now().strftime("%H:%M") >= given["until"]:
                print(f"stopped at {given['until']} after {i} of {len(drawn)} mutations")
                break
            most = float(given["seconds"])
            names = selected(module, change, test_files(tree, module), tests, most)
            line = {"seed": given["seed"]} | try_out(tree, module, change, names, 30 + 6 * most)
            lines[i : i + 1] = [line]
            print(*(line[name] for name in COLUMNS[1:]), sep=" | ", flush=True)
            _write(Path(given["csv"]), lines)
    page(Path(given["csv"]))


def _tried(results: Path, seed: str, drawn: list[tuple[str, Mutation]]) -> list[dict[str, Any]]:
    """Return the lines of an earlier run of the same draw."""
    lines: list[dict[str, Any]] = []
    if results.exists():
        with results.open(newline="") as opened:
            lines = list(csv.DictReader(opened))
    for line, (module, change) in zip(lines, drawn, strict=False):
        told = (line["seed"], line["module"], line["before"], line["after"])
        if told != (seed, module, change.before, change.after):
            return []
    return lines[: len(drawn)]


def _write(target: Path, lines: list[dict[str, Any]]) -> None:
    with target.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
