"""How far a run has come, told from its folder alone."""

import json
import subprocess
import sys

import pytest

from gradcam_bench import api
from gradcam_bench.cli import status
from gradcam_bench.cli.status import duration, status_lines
from gradcam_bench.errors import UserError
from gradcam_bench.run import loop


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two of four parts of a run: images 0-2 and 6-8 of 10."""
    words = ["dataset.length=10", "part_size=3", "faithfulness.enabled=false", "shard.count=2"]
    config, _ = api.compose(words)
    directory = tmp_path_factory.mktemp("status") / "run"
    assert not loop.run(config, directory, command="gradcam-bench dataset.length=10 ...")
    return directory


def test_done_and_missing_parts_and_the_time_left_are_told(folder):
    seconds = json.loads((folder / "run.json").read_text())["seconds"]
    told = status_lines(folder, workers=2)
    assert told == [
        f"{folder}: 2 of 4 parts done, 6 of 10 images, 2 parts missing, 0 images failed",
        f"  left: {duration(seconds / 6 * 4 / 2)} with 2 workers",
        "  go on: gradcam-bench dataset.length=10 ...",
    ]


def test_a_damaged_part_is_told_and_does_not_count(folder, tmp_path):
    for path in folder.rglob("*.*"):
        copy = tmp_path / "run" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    part = tmp_path / "run" / "scores" / "part-00002.parquet"
    part.write_bytes(part.read_bytes()[:-1])
    first = status_lines(tmp_path / "run")[0]
    assert "1 of 4 parts done, 3 of 10 images, 2 parts missing" in first
    assert "1 part damaged (part-00002.parquet)" in first


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "status expects at least one folder"),
        (["nowhere"], "nowhere holds no run"),
        (["x", "workers=0"], "workers expects a number from 1, got '0'"),
    ],
)
def test_mistakes_are_told(words, message):
    with pytest.raises(UserError, match=message):
        status.main(words)


def test_times_are_told_as_people_say_them():
    assert [duration(s) for s in (3.2, 89, 95, 5300, 12000)] == [
        "3 s", "89 s", "2 min", "88 min", "3 h 20 min",
    ]  # fmt: skip


def test_status_never_loads_torch(folder):
    code = (
        "import sys; from gradcam_bench.cli import status; "
        f"status.main([{str(folder)!r}]); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
