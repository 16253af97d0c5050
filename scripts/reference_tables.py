"""The tables of docs/ that the code itself tells: methods, columns, keys of run.json, folders.

update_readme.py writes them into the pages.
"""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pandas as pd

from gradcam_bench.names import METHODS
from gradcam_bench.report import tables
from gradcam_bench.store.run_record import ALWAYS, KEYS, type_name
from gradcam_bench.store.schema import COLUMNS, GALLERY_COLUMNS, Column

ROOT = Path(__file__).parents[1]


def methods(_: str) -> str:
    """Return a line a method: how it is named and called, where it is from, what it costs."""
    lines = [
        {"`methods=`": f"`{m.name}`", "title": m.title, "source": m.source, "cost": m.cost}
        for m in METHODS.values()
    ]
    return tables.to_markdown(pd.DataFrame(lines))


def columns(name: str) -> str:
    """Return a line a column of the rows, or of the gallery."""
    known = {"rows": COLUMNS, "gallery": GALLERY_COLUMNS}[name]
    lines = [
        {
            "column": f"`{column.name}{'[@P]' if column.per_protocol else ''}`",
            "type": _arrow_name(column),
            "range": _range(column),
            "written by": column.writer,
            "meaning": column.meaning,
            "undefined where": column.undefined or "-",
        }
        for column in known.values()
    ]
    return tables.to_markdown(pd.DataFrame(lines))


def _arrow_name(column: Column) -> str:
    return f"`{column.type}`".replace("element: ", "").replace("item: ", "")


def _range(column: Column) -> str:
    """Return the smallest and the largest value of a column of numbers."""
    if str(column.type) not in ("double", "int64"):
        return "-"
    if math.isinf(column.low):
        return "any" if math.isinf(column.high) else f"to {column.high:g}"
    return (
        f"from {column.low:g}" if math.isinf(column.high) else f"{column.low:g} to {column.high:g}"
    )


def run_keys(_: str) -> str:
    """Return a line a key of run.json."""
    lines = [
        {
            "key": f"`{name}`",
            "type": f"`{type_name(kind)}`".replace("|", "or"),
            "always": "yes" if name in ALWAYS else "no",
            "meaning": meaning,
        }
        for name, (kind, meaning) in KEYS.items()
    ]
    return tables.to_markdown(pd.DataFrame(lines))


def folders(_: str) -> str:
    """Return a line a folder or single module, as tests/test_structure.py lets them import."""
    tree = ast.parse((ROOT / "tests" / "test_structure.py").read_text())
    facts = {
        target.id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and target.id in ("ALLOWED", "WORDS", "COMPUTING")
    }
    package = ROOT / "gradcam_bench"
    lines = []
    for name, allowed in facts["ALLOWED"].items():
        folder = (package / name).is_dir()
        path = package / name / "__init__.py" if folder else package / f"{name}.py"
        told = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines.append(
            {
                "place": f"`{name}/`" if folder else f"`{name}.py`",
                "what it is": told.partition("\n")[0],
                "imports": ", ".join(sorted(allowed)) or "-",
                "torch": "yes" if name in facts["COMPUTING"] else "no",
            }
        )
    return tables.to_markdown(pd.DataFrame(lines))


TABLES = {"methods": methods, "columns": columns, "run_keys": run_keys, "folders": folders}
"""How to make each by the name of its block."""
