"""The page that tells which changes of the package the tests did not notice, and why."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

REASONS = "mutation_equivalent.csv"
"""Beside the results: module, function, before, after and why nothing a user sees depends on it."""


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as opened:
        return list(csv.DictReader(opened))


def _key(line: dict[str, str]) -> tuple[str, ...]:
    return tuple(line[name] for name in ("module", "function", "before", "after"))


def _code(text: str) -> str:
    """Return code on one line of a table."""
    return "`" + " ".join(text.split()).replace("|", "\\|").replace("`", "'") + "`"


def page(results: Path) -> None:
    """Write a Markdown page beside the results of scripts/mutate.py.

    Args:
        results: its CSV; the page has the same name, and the reasons lie in `REASONS` beside it.
    """
    lines = _read(results)
    if not lines:
        return
    reasons = {_key(line): line["reason"] for line in _read(results.with_name(REASONS))}
    survivors = [line for line in lines if line["result"] == "survived"]
    unseen = [line for line in survivors if _key(line) not in reasons]
    same = [line for line in survivors if _key(line) in reasons]
    noticed = len(lines) - len(survivors)
    real = len(lines) - len(same)
    text = [
        "# What the tests notice",
        "",
        "Written by scripts/mutate.py: random changes of one operator, constant, condition, bound,",
        "call, result or statement, and whether a test of the module's folder fails or hangs.",
        "",
        f"Of {len(lines)} changes (seed {', '.join(sorted({line['seed'] for line in lines}))}) "
        f"{noticed} were noticed ({noticed / len(lines):.1%}). {len(same)} of the others change "
        f"nothing that a user can see; without them it is {noticed / real:.1%} of {real}.",
        "",
        "| folder | changes | noticed | of these by running out of time | equivalent |",
        "| --- | --- | --- | --- | --- |",
    ]
    folders = [line["module"].split("/")[1] for line in lines]
    for folder, count in sorted(Counter(folders).items()):
        mine = [line for line, where in zip(lines, folders, strict=True) if where == folder]
        results_of = Counter(line["result"] for line in mine)
        equal = sum(_key(line) in reasons for line in mine if line["result"] == "survived")
        seen = count - results_of["survived"]
        text.append(f"| {folder} | {count} | {seen} | {results_of['timeout']} | {equal} |")
    for title, chosen in (("Not noticed", unseen), ("Equivalent", same)):
        text += ["", f"## {title}", ""]
        text += [_told(line, reasons.get(_key(line), "")) for line in chosen] or ["None."]
    results.with_suffix(".md").write_text("\n".join(text) + "\n")


def _told(line: dict[str, str], reason: str) -> str:
    change = f"{_code(line['before'])} became {_code(line['after'])}"
    told = f"- {line['module']}:{line['line']}, {line['function'] or 'top'}: {change}"
    return f"{told}: {reason}" if reason else told
