"""README, docs/ and the like: made where they can be made, complete, and true in what they name."""

import ast
import dataclasses
import re

import pytest
import yaml
from repository import ROOT, load_script

from gradcam_bench.config import Config, Faithfulness
from gradcam_bench.names import METHODS

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
README = (ROOT / "README.md").read_text()
LINK = re.compile(r"\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)


def pages():
    return pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def anchors(path):
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text()), re.M)
    found = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    assert len(set(found)) == len(found)  # a second one of a name would be name-1
    return found


@pages()
def test_every_block_of_a_page_is_made_from_code_conf_and_results(page):
    text = page.read_text()
    assert load_script("update_readme").updated(text) == text, "run python scripts/update_readme.py"
    assert text.count("<!-- begin ") == text.count("<!-- end -->")


def test_every_page_is_one_that_the_script_writes():
    written = set(load_script("update_readme").PAGES)
    assert all(page in written for page in PAGES if "<!-- begin " in page.read_text())


@pages()
def test_every_link_and_picture_of_a_page_leads_somewhere(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), target


@pages()
def test_every_path_that_a_page_names_exists(page):
    named = re.findall(
        r"`((?:gradcam_bench|conf|docs|tests|scripts|results)/[\w./-]+)`",
        FENCE.sub("", page.read_text()),
    )
    for path in named:
        assert (ROOT / path).exists(), path


def test_every_page_is_reached_by_links_from_the_readme():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        files = [target.partition("#")[0] for target in LINK.findall(page.read_text())]
        waiting += [
            (page.parent / file).resolve() for file in files if (page.parent / file).is_file()
        ]
    assert {page.resolve() for page in PAGES} <= {page.resolve() for page in reached}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 110


def test_the_readmes_python_runs_as_pasted():
    (text,) = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
    names = {}
    exec(compile(text, "README.md", "exec"), names)
    assert names["heatmap"].shape == (1, 96, 96)
    assert names["picture"][0].size == (96, 96)


def test_the_page_of_keys_has_every_key_choice_and_method():
    text = (ROOT / "docs" / "keys.md").read_text()
    fields = {field.name for field in dataclasses.fields(Config)} - {"protocols"}
    words = set(re.findall(r"[a-z_0-9]+", text))
    assert fields | {"protocol"} <= words
    assert {field.name for field in dataclasses.fields(Faithfulness)} <= words
    assert set(METHODS) <= words
    for group in ("model", "dataset", "protocol", "experiment"):
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            plain = re.sub(r"efficientnet_lite\d", "efficientnet_lite0", path.stem)
            assert plain in words, f"docs/keys.md does not name {group}={path.stem}"


def test_the_page_of_the_house_lists_what_the_structure_test_allows():
    tree = ast.parse((ROOT / "tests" / "test_structure.py").read_text())
    allowed = next(
        node.value for node in tree.body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ALLOWED"
    )  # fmt: skip
    text = (ROOT / "docs" / "architecture.md").read_text()
    for name in ast.literal_eval(allowed):
        assert re.search(rf"^\| `{name}(/|\.py)` +\| \w", text, re.M), name


def test_the_citation_and_the_changelog_name_the_packages_version():
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    changes = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert changes[0] == version
