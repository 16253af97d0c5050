"""Processes that start on one folder at the same moment: real ones, many times."""

import multiprocessing
import sys

import pytest

from gradcam_bench.errors import UserError
from gradcam_bench.store.parts import read_rows, read_run

STARTS = 25


def start(directory, config_hash, *, part, overwrite):
    """Join a folder, compute one part of four and finish; return how it ended."""
    from gradcam_bench.errors import UserError
    from gradcam_bench.store.parts import Store

    rows = [{"image_id": f"{config_hash}{part}", "method": "m", "layer": "l"}]
    try:
        run = {"config_hash": config_hash, "identity": {"seed": config_hash}}
        store = Store(directory, run, n_images=4, part_size=1, overwrite=overwrite)
        store.write_part(part, rows, [], seconds=1)
        store.write_run()
    except UserError as error:
        return str(error)
    return "done"


def worker(number, hashes, folder, barrier, results, overwrite):
    for i in range(STARTS):
        barrier.wait()
        results.put(
            (i, number, start(folder / str(i), hashes[number], part=number, overwrite=overwrite))
        )
    assert "torch" not in sys.modules


def at_once(folder, hashes, *, overwrite=False):
    """Return how each of several processes ended, by folder."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(len(hashes), timeout=30), context.Queue()
    processes = [
        context.Process(
            target=worker, args=(i, hashes, folder, barrier, results, overwrite), daemon=True
        )
        for i in range(len(hashes))
    ]
    for process in processes:
        process.start()
    ends = [[""] * len(hashes) for _ in range(STARTS)]
    for _ in range(STARTS * len(hashes)):
        i, number, end = results.get(timeout=30)
        ends[i][number] = end
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    return ends


def owners(folder):
    """Return whose rows a folder holds, or that it tells of another run's."""
    try:
        return {image_id[0] for image_id in read_rows(folder).image_id}
    except UserError as error:
        if "holds no run: expected" in str(error):
            return set()
        return {"refused"} if "belongs to another run" in str(error) else {str(error)}


def test_four_shards_that_start_at_once_all_go_on(tmp_path):
    for i, ends in enumerate(at_once(tmp_path, ["a"] * 4)):
        assert ends == ["done"] * 4
        assert read_run(tmp_path / str(i))["complete"] is True
        assert read_rows(tmp_path / str(i)).image_id.tolist() == ["a0", "a1", "a2", "a3"]


def test_of_two_configs_that_start_at_once_one_wins_and_the_other_is_refused(tmp_path):
    for i, ends in enumerate(at_once(tmp_path, ["a", "b"])):
        assert sorted(end == "done" for end in ends) == [False, True]
        assert any("holds a run of another config (seed:" in end for end in ends)
        winner = "ab"[ends.index("done")]
        assert read_run(tmp_path / str(i))["config_hash"] == winner
        assert read_rows(tmp_path / str(i)).image_id.tolist() == [f"{winner}{ends.index('done')}"]


@pytest.mark.parametrize("hashes", [["a", "b"], ["a", "a", "b"]])
def test_of_configs_that_overwrite_each_other_no_rows_are_mixed(tmp_path, hashes):
    for i, ends in enumerate(at_once(tmp_path, hashes, overwrite=True)):
        owner = read_run(tmp_path / str(i))["config_hash"]
        assert any(h == owner and end == "done" for h, end in zip(hashes, ends, strict=True))
        for end in ends:
            assert end == "done" or "was replaced by another process" in end
        # Of one that had not noticed yet, the last part may be left, or it may have removed the
        # other's: then no row is read, and the next run computes the part again.
        assert owners(tmp_path / str(i)) in ({owner}, {"refused"}, set())
