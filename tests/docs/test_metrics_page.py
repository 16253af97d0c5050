"""docs/metrics.md: made from the code where it can be, complete, and true in what it names."""

import ast
import re

import pytest
from repository import ROOT

from gradcam_bench.analysis.metrics import METRICS

PAGE = (ROOT / "docs" / "metrics.md").read_text()
PARTS = ("- **Formula.** ", "- **Agreement.** ", "- **Traps.** ")
TEST = re.compile(r"((?:\w+/)*test_\w+\.py)::(test_\w+)")


def sections():
    """Return the text under each heading `metric`."""
    found = re.split(r"^### `(\w+)`\n", PAGE, flags=re.M)
    ends = [re.split(r"^##+ ", text, flags=re.M)[0] for text in found[2::2]]
    return list(zip(found[1::2], ends, strict=True))


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_a_section_that_says_all_there_is(name):
    texts = [text for title, text in sections() if title == name]
    assert len(texts) == 1, f"docs/metrics.md needs one section '### `{name}`', as the others"
    assert f"<!-- begin metric {name} -->" in texts[0]
    for part in PARTS:
        lines = [line for line in texts[0].splitlines() if line.startswith(part)]
        assert len(lines) == 1, f"docs/metrics.md, {name}: one line '{part}...'"
        assert len(lines[0]) > len(part) + 10


def test_no_section_is_of_a_metric_that_there_is_not():
    assert {title for title, _ in sections()} == set(METRICS)


def test_every_agreement_names_a_test_or_the_metric_whose_tests_hold_it():
    lines = {
        name: next(line for line in text.splitlines() if line.startswith(PARTS[1]))
        for name, text in sections()
    }
    proven = {name for name, line in lines.items() if TEST.search(line)}
    for name, line in lines.items():
        shared = set(re.findall(r"\(#(\w+)\)", line))
        assert name in proven or shared & proven, name


def test_every_test_that_the_page_names_exists():
    named = set(TEST.findall(PAGE))
    assert len(named) > 50
    for file, name in sorted(named):
        path = ROOT / "tests" / file
        assert path.is_file(), file
        functions = {node.name for node in ast.parse(path.read_text()).body
                     if isinstance(node, ast.FunctionDef)}  # fmt: skip
        assert name in functions, f"{file}::{name} is no test; correct docs/metrics.md"
    for file in set(re.findall(r"(?:tests/)?((?:\w+/)*test_\w+\.py)", PAGE)):
        assert (ROOT / "tests" / file).is_file(), file
