"""run.json: every key that is written is described, and its value has the type that is said."""

import json

import pytest
import small_runs
from repository import ROOT

from gradcam_bench.store.run_record import ALWAYS, KEYS, check_record

RUNS = sorted((ROOT / "results").rglob("run.json"))


@pytest.mark.parametrize("path", RUNS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_stored_run_has_only_keys_that_are_described(path):
    check_record(json.loads(path.read_text()))


def test_a_new_run_has_every_key_that_every_run_has(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    small_runs.run(first, "++dataset.length=4", "methods=[grad_cam]")
    small_runs.run(
        second, "++dataset.length=4", "methods=[grad_cam]", f"thresholds_from={first}",
        "++dataset.seed=1", "faithfulness.enabled=false",
    )  # fmt: skip
    found = [json.loads((folder / "run.json").read_text()) for folder in (first, second)]
    for run in found:
        check_record(run)
        assert set(run) >= ALWAYS
    assert set(found[0]) | set(found[1]) == set(KEYS)  # and nothing is described that is not there


def test_every_key_says_what_it_means():
    assert all(len(meaning) > 10 for _, meaning in KEYS.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"n_image": 3}, "no key 'n_image'. Nearest: n_images"),
        ({"n_images": "3"}, "n_images expects int: '3'"),
        ({"n_images": True}, "n_images expects int: True"),
        ({"layers": ["a", 1]}, r"layers expects list\[str\]"),
        ({"versions": {"torch": 2}}, r"versions expects dict\[str, str\]"),
        ({"commit": 3}, r"commit expects str \| None: 3"),
        ({"seconds": "1"}, "seconds expects float"),
    ],
)
def test_a_key_that_nothing_describes_and_a_value_of_another_type_are_mistakes(content, message):
    with pytest.raises(AssertionError, match=message):
        check_record(content)


def test_whole_seconds_and_no_commit_are_fine():
    check_record({"seconds": 1, "commit": None})
