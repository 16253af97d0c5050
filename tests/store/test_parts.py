import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import OTHER, RUN, broken, fill, row, rows, store

from gradcam_bench.errors import UserError
from gradcam_bench.store import files
from gradcam_bench.store.files import file_state
from gradcam_bench.store.part_file import read_record
from gradcam_bench.store.parts import (
    identity_hash,
    provenance_differences,
    read_gallery,
    read_rows,
    read_run,
)


def test_parts_have_fixed_boundaries_and_cover_every_image_once(tmp_path):
    s = store(tmp_path)
    assert [list(s.images_of(p)) for p in s.missing_parts()] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9],
    ]


def test_shards_are_disjoint_and_together_whole(tmp_path):
    s = store(tmp_path, n=30)
    shards = [s.missing_parts(i, 3) for i in range(3)]
    assert sorted(part for shard in shards for part in shard) == s.missing_parts()
    assert [len(x) for x in shards] == [3, 3, 2]


def test_written_parts_are_skipped_and_read_back_in_order(tmp_path):
    s = store(tmp_path)
    fill(s, 2, 0, seconds=1.5)
    again = store(tmp_path)
    assert again.missing_parts() == [1]
    assert not again.complete()
    fill(again, 1, seconds=2)
    assert again.complete()
    again.write_run()
    assert read_rows(tmp_path).image_id.tolist() == [f"i{i}" for i in range(10)]
    assert read_rows(tmp_path).deletion_curve[3].tolist() == [0.0, 1.0]
    assert read_run(tmp_path)["seconds"] == 5.0
    assert read_run(tmp_path)["complete"] is True


# --- No value is lost ----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_broken_image_takes_no_column_of_the_others(tmp_path, place):
    s = store(tmp_path, n=4)
    mixed = [broken(i) if i == place else rows([i])[0] for i in range(4)]
    s.write_part(0, mixed, [], seconds=1)
    found = read_rows(tmp_path)
    good = found[found.error.isna()]
    assert good.image_id.tolist() == [f"i{i}" for i in range(4) if i != place]
    assert good.box_iou.tolist() == [i / 20 for i in range(4) if i != place]
    assert good.label.tolist() == [i % 3 for i in range(4) if i != place]
    assert read_record(s.parts.path("scores", 0)).errors == 1


def test_a_column_that_only_the_last_row_has_is_kept(tmp_path):
    s = store(tmp_path, n=3)
    s.write_part(
        0, [*rows(range(2)), row(2, **{"box_iou@cam2016": 0.5, "road": 0.25})], [], seconds=1
    )
    assert read_rows(tmp_path)["box_iou@cam2016"].dropna().tolist() == [0.5]
    assert read_rows(tmp_path)["road"].dropna().tolist() == [0.25]


@pytest.mark.parametrize("first", [True, False])
def test_a_part_whose_images_are_all_broken_has_the_columns_of_a_scored_one(tmp_path, first):
    s = store(tmp_path, n=8)
    s.write_part(
        0 if first else 1, [broken(i) for i in s.images_of(0 if first else 1)], [], seconds=1
    )
    assert {"label", "predicted", "top1_correct", "error"} <= set(read_rows(tmp_path).columns)
    fill(s, 1 if first else 0)
    found = read_rows(tmp_path)
    assert found.box_iou.notna().sum() == found.label.notna().sum() == 4
    assert found.error.notna().sum() == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"box_iuo": 0.5}, "no column 'box_iuo' is described.*Nearest: box_iou"),
        ({"road@wsol_v1": 0.5}, "no column 'road@wsol_v1' is described"),
        ({"label": 1.5}, "'label' holds whole numbers"),
        ({"label": 2**70}, "'label' is int64, but"),
        ({"box_iou": "0.5"}, "'box_iou' is double, but"),
        ({"error": 3}, "'error' is string, but"),
    ],
)
def test_a_value_that_cannot_be_stored_is_an_error(tmp_path, values, message):
    s = store(tmp_path, n=2)
    with pytest.raises(AssertionError, match=message):
        s.write_part(0, [*rows([0]), row(1, **values)], [], seconds=1)
    assert s.missing_parts() == [0]


def test_a_part_without_one_of_its_images_is_an_error(tmp_path):
    with pytest.raises(AssertionError, match="part 0 has rows of 3 images, expected 4"):
        store(tmp_path).write_part(0, rows(range(3)), [], seconds=1)


# --- Broken images -------------------------------------------------------------------------------


def test_the_first_error_is_that_of_the_first_broken_image_of_the_first_part_with_one(tmp_path):
    s = store(tmp_path)
    assert s.first_error() == ""
    fill(s, 0)
    assert s.first_error() == ""
    s.write_part(2, [broken(8), broken(9)], [], seconds=1)
    assert "i8 cannot be read" in s.first_error()
    s.write_part(1, [row(4), broken(5), row(6), broken(7)], [], seconds=1)
    assert "i5 cannot be read" in store(tmp_path).first_error()


def test_a_part_with_a_broken_image_is_computed_again_only_when_the_file_changed(tmp_path):
    image = tmp_path / "i3.jpg"
    image.write_bytes(b"half")
    s = store(tmp_path / "out")
    state = file_state(image)
    s.write_part(0, [*rows(range(3)), broken(3)], [], seconds=1, broken_files=[state])
    fill(s, 1, 2)
    assert store(tmp_path / "out").missing_parts() == []
    assert store(tmp_path / "out").errors() == 1
    assert store(tmp_path / "out", retry_errors=True).missing_parts() == [0]
    assert "i3 cannot be read" in store(tmp_path / "out").first_error()
    image.write_bytes(b"full")
    assert store(tmp_path / "out").missing_parts() == [0]
    image.unlink()
    assert store(tmp_path / "out").missing_parts() == [0]


def test_a_file_that_was_missing_is_tried_again_when_it_is_there(tmp_path):
    s = store(tmp_path / "out", n=1)
    gone = file_state(tmp_path / "gone.jpg")
    s.write_part(0, [broken(0)], [], seconds=1, broken_files=[gone])
    assert store(tmp_path / "out", n=1).missing_parts() == []
    (tmp_path / "gone.jpg").write_bytes(b"here")
    assert store(tmp_path / "out", n=1).missing_parts() == [0]


def test_a_file_whose_permissions_changed_is_tried_again(tmp_path):
    image = tmp_path / "i0.jpg"
    image.write_bytes(b"x")
    image.chmod(0)
    s = store(tmp_path / "out", n=1)
    s.write_part(0, [broken(0)], [], seconds=1, broken_files=[file_state(image)])
    time.sleep(0.02)  # a file system's clock ticks
    image.chmod(0o644)
    assert store(tmp_path / "out", n=1).missing_parts() == [0]


def test_errors_are_those_of_all_processes_but_of_parts_computed_anew(tmp_path):
    one, two = store(tmp_path), store(tmp_path)
    one.write_part(0, [*rows(range(3)), broken(3)], [], seconds=1)
    assert two.errors() == 1
    one.write_part(1, [broken(i) for i in range(4, 8)], [], seconds=1)
    assert two.errors() == 5
    assert two.errors(without={1}) == 1
    fill(one, 1)
    assert two.recount_errors() == 1


# --- Writing --------------------------------------------------------------------------------------


def test_an_interrupted_write_leaves_no_part(tmp_path, monkeypatch):
    s = store(tmp_path)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", cut)
    with pytest.raises(KeyboardInterrupt):
        fill(s, 0)
    monkeypatch.undo()
    assert list((tmp_path / "scores").iterdir()) == []


def test_another_config_is_refused_by_name_unless_overwritten(tmp_path):
    first = store(tmp_path)
    fill(first, 0)
    with pytest.raises(UserError, match=r"another config \(seed: 0 there, 1 now\).*overwrite=true"):
        store(tmp_path, run=OTHER)
    assert len(read_rows(tmp_path)) == 4
    (tmp_path / "notes.txt").write_text("the user's own")
    fresh = store(tmp_path, run=OTHER, overwrite=True)
    assert fresh.missing_parts() == [0, 1, 2]
    assert (tmp_path / "notes.txt").exists()
    assert read_run(tmp_path)["config_hash"] == "b"
    with pytest.raises(UserError, match="holds no run"):
        read_gallery(tmp_path)


def test_scores_of_another_config_without_a_run_are_not_trusted(tmp_path):
    fill(store(tmp_path), 0)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"no run\.json, and part-00000.parquet is not of this"):
        store(tmp_path, run=OTHER)
    assert not (tmp_path / "run.json").exists()
    assert store(tmp_path, run=OTHER, overwrite=True).missing_parts() == [0, 1, 2]


@pytest.mark.parametrize("left", [None, b"", b"{", b"[1]"])
def test_a_lost_or_broken_run_json_is_made_anew_from_the_parts(tmp_path, left, monkeypatch):
    monkeypatch.setattr("gradcam_bench.store.run_file._PAUSE", 0)
    first = fill(store(tmp_path, run={**RUN, "scorer": "torch", "commit": "c1"}), 0, 1)
    first.write_run()
    (tmp_path / "run.json").unlink()
    if left is not None:
        (tmp_path / "run.json").write_bytes(left)
        with pytest.raises(UserError, match=r"another config.*run\.json is broken"):
            store(tmp_path, run=OTHER)
    again = store(tmp_path, run={**RUN, "scorer": "onnxruntime", "commit": "c2"})
    assert again.missing_parts() == [2]
    again.write_run()
    assert read_run(tmp_path)["scorer"] == "torch"
    assert read_run(tmp_path)["commit"] == "c1"


def test_a_temporary_file_that_is_renamed_while_a_folder_is_swept_is_let_go(tmp_path, monkeypatch):
    old = tmp_path / f".part-00000.parquet.{'0' * 16}"
    old.write_bytes(b"x")
    os.utime(old, (0, 0))
    gone = tmp_path / f".part-00001.parquet.{'1' * 16}"  # renamed by its process meanwhile
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([gone, old]))
    files.remove_left_behind(tmp_path)
    assert not old.exists()


def test_temporary_names_do_not_depend_on_the_process(tmp_path, monkeypatch):
    names = set()
    replace = files.os.replace

    def noted(source, target):
        names.add(source.name)
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", noted)
    monkeypatch.setattr(files.os, "getpid", lambda: 1)
    for _ in range(20):
        files.write_atomically(tmp_path / "x", b"x")
    assert len(names) == 20
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_file_is_created_once_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def none(*_):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(files.os, "link", none)
    assert files.create_atomically(tmp_path / "x", b"1")
    assert not files.create_atomically(tmp_path / "x", b"2")
    assert (tmp_path / "x").read_bytes() == b"1"


def test_what_killed_processes_left_goes_but_not_what_is_being_written(tmp_path):
    fill(store(tmp_path), 0)
    old, new = (tmp_path / f"scores/.part-00001.parquet.{digit * 16}" for digit in "01")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert store(tmp_path).missing_parts() == [1, 2]
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize("below", ["", "/deeper/still"])
def test_a_file_in_the_way_of_the_folder_is_told(tmp_path, below):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file is a file\. Choose another folder"):
        store(tmp_path / f"file{below}")


def test_a_file_in_the_way_of_the_scores_is_told(tmp_path):
    (tmp_path / "scores").write_text("")
    with pytest.raises(UserError, match=r"scores is a file\. Choose another"):
        store(tmp_path)


@pytest.mark.parametrize("call", ["mkdir", "fsync", "replace"])
def test_what_the_file_system_refuses_is_told(tmp_path, monkeypatch, call):
    s = None if call == "mkdir" else store(tmp_path / "out")

    def refused(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((Path, call) if call == "mkdir" else (files.os, call)), refused)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)\. Check"):
        fill(s, 0) if s else store(tmp_path / "out")
    monkeypatch.undo()
    assert not list(tmp_path.rglob("part-*"))


# --- Runs that replace each other -----------------------------------------------------------------


def test_a_process_whose_run_was_replaced_stops_and_writes_nothing(tmp_path):
    a = fill(store(tmp_path, n=16), 0, 1, 2)
    b = fill(store(tmp_path, n=16, run=OTHER, overwrite=True))
    b.write_run()
    with pytest.raises(UserError, match=r"replaced by another process \(seed: 1 there, 0 now\)"):
        fill(a, 3)
    with pytest.raises(UserError, match="was replaced"):
        a.write_run()
    assert read_run(tmp_path)["config_hash"] == "b"
    assert read_run(tmp_path)["complete"] is True
    assert {read_record(b.parts.path("scores", p)).config_hash for p in range(4)} == {"b"}
    with pytest.raises(UserError, match="another config"):
        store(tmp_path, n=16)


def test_a_stray_part_of_another_run_is_found(tmp_path, caplog):
    b = fill(store(tmp_path / "b", run=OTHER))
    b.write_run()
    a = fill(store(tmp_path / "a"), 1)
    b.parts.path("scores", 1).write_bytes(a.parts.path("scores", 1).read_bytes())
    with pytest.raises(
        UserError, match=r"part-00001.parquet belongs to another run \(config hash a"
    ):
        read_rows(tmp_path / "b")
    again = store(tmp_path / "b", run=OTHER)
    assert again.missing_parts() == [1]
    assert not again.complete()
    assert caplog.messages == [
        f"{b.parts.path('scores', 1)} belongs to another run (config hash a, this run's is b): "
        "it has to be computed again."
    ]


def test_overwriting_keeps_what_processes_of_the_same_config_wrote(tmp_path):
    fill(store(tmp_path))
    one = fill(store(tmp_path, run=OTHER, overwrite=True), 0)
    two = store(tmp_path, run=OTHER, overwrite=True)
    assert two.missing_parts() == [1, 2]
    fill(two, 1, 2)
    assert one.complete()


# --- Who computed what ----------------------------------------------------------------------------


def process(start, **changes):
    return {
        **RUN,
        "started": f"2025-01-01T00:00:0{start}+00:00",
        "versions": {"torch": "2.6", "numpy": "2.0"},
        "commit": "c1",
        "device": "cpu",
        "machine": "m1",
        **changes,
    }


def test_run_json_tells_who_computed_which_parts(tmp_path):
    fill(store(tmp_path, n=20, run=process(1, scorer="torch")), 0, 1, 3).write_run()
    later = process(2, scorer="onnxruntime", versions={"torch": "2.7", "numpy": "2.0"})
    fill(store(tmp_path, n=20, run=later), 2, 4).write_run()
    found = read_run(tmp_path)
    assert [entry["parts"] for entry in found["computed"]] == ["0-1, 3", "2, 4"]
    assert [entry["scorer"] for entry in found["computed"]] == ["torch", "onnxruntime"]
    assert found["scorer"] == "onnxruntime"
    assert provenance_differences(found) == [
        "parts 0-1, 3 were computed with torch 2.6 and with torch as scorer, "
        "parts 2, 4 with torch 2.7 and with onnxruntime as scorer"
    ]
    assert found["seconds"] == 5.0


def test_a_rerun_that_computes_nothing_changes_nobody(tmp_path):
    fill(store(tmp_path, run=process(1, scorer="torch"))).write_run()
    before = read_run(tmp_path)
    store(tmp_path, run=process(2, commit="c2", machine="m2", device="gpu")).write_run()
    assert read_run(tmp_path) == before | {"config": {"thresholds_from": None}}


def test_a_process_that_was_killed_is_named_by_its_parts(tmp_path):
    fill(store(tmp_path, run=process(1, scorer="torch")), 0)  # no write_run
    fill(store(tmp_path, run=process(2, commit="c2")), 1, 2).write_run()
    found = read_run(tmp_path)
    assert [(e["parts"], e["commit"]) for e in found["computed"]] == [("0", "c1"), ("1-2", "c2")]
    assert provenance_differences(found) == [
        "part 0 was computed from commit c1, parts 1-2 from commit c2"
    ]


def test_runs_computed_alike_have_no_differences(tmp_path):
    fill(store(tmp_path, run=process(1)), 0)
    fill(store(tmp_path, run=process(2)), 1, 2).write_run()
    assert len(read_run(tmp_path)["computed"]) == 2
    assert provenance_differences(read_run(tmp_path)) == []
    assert provenance_differences({}) == []


def test_a_part_stored_while_run_json_is_written_is_in_it(tmp_path, monkeypatch):
    one, two = store(tmp_path, n=8), store(tmp_path, n=8)
    fill(one, 0)
    write = files.write_atomically

    def slow(path, content):
        if path.name == "run.json" and not two.complete():
            fill(two, 1)
        write(path, content)

    monkeypatch.setattr("gradcam_bench.store.parts.write_atomically", slow)
    one.write_run()
    assert read_run(tmp_path)["complete"] is True


# --- Folders of older versions --------------------------------------------------------------------


def old_folder(path, parts=(0, 1)):
    """Write a run as the version before checksums did."""
    (path / "scores").mkdir(parents=True)
    old = {**RUN, "commit": "c0", "scorer": "torch", "seconds": 2.0, "complete": False}
    (path / "run.json").write_text(json.dumps(old))
    for part in parts:
        table = pa.Table.from_pylist(rows(range(part * 4, min(part * 4 + 4, 10))))
        table = table.set_column(
            table.column_names.index("error"), "error", pa.nulls(len(table), pa.string())
        )
        table = table.replace_schema_metadata({b"errors": b"0", b"seconds": b"1.000"})
        pq.write_table(table, path / f"scores/part-{part:05d}.parquet", compression="zstd")
    return path


def test_an_old_folder_goes_on_and_is_said_to_be_unchecked_once(tmp_path, caplog):
    directory = old_folder(tmp_path / "old")
    assert len(read_rows(directory)) == 8
    s = store(directory, run=process(1, commit="c1"))
    assert s.missing_parts() == [2]
    fill(s, 2)
    s.write_run()
    assert read_rows(directory).image_id.tolist() == [f"i{i}" for i in range(10)]
    assert read_rows(directory).box_iou.notna().all()
    found = read_run(directory)
    assert found["complete"] is True
    assert found["seconds"] == 3.0
    assert [e["parts"] for e in found["computed"]] == ["0-1", "2"]
    assert found["computed"][0] == {
        "parts": "0-1",
        "commit": "c0",
        "scorer": "torch",
        "unchecked": True,
    }
    assert provenance_differences(found) == [
        "parts 0-1 were computed from commit c0, part 2 from commit c1"
    ]
    assert caplog.messages == [
        f"{directory}: stored by an older version, without checksums: unchecked."
    ]


def test_a_part_without_checksum_is_refused_where_parts_have_one(tmp_path):
    directory = old_folder(tmp_path / "old")
    fill(store(directory), 2).write_run()
    assert store(directory).missing_parts() == []
    last = directory / "scores/part-00002.parquet"
    last.write_bytes((directory / "scores/part-00001.parquet").read_bytes())
    with pytest.raises(UserError, match=r"part-00002.parquet carries no checksum"):
        read_rows(directory)
    assert store(directory).missing_parts() == [2]


def test_an_old_part_with_a_broken_image_is_computed_once_more(tmp_path):
    directory = old_folder(tmp_path / "old", parts=(0,))
    path = directory / "scores/part-00000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"errors": b"1", b"seconds": b"1"}), path)
    s = store(directory)
    assert s.missing_parts() == [0, 1, 2]
    s.write_part(0, [broken(i) for i in range(4)], [], seconds=1)
    assert store(directory).missing_parts() == [1, 2]


def test_a_missing_part_of_a_complete_run_is_told(tmp_path):
    s = fill(store(tmp_path))
    s.write_run()
    s.parts.path("scores", 1).unlink()
    with pytest.raises(UserError, match=r"part-00001\.parquet is missing\. Run the same command"):
        read_rows(tmp_path)
    assert store(tmp_path).missing_parts() == [1]


def test_the_hash_depends_on_values_not_on_their_order():
    assert identity_hash({"a": 1, "b": [2]}) == identity_hash({"b": [2], "a": 1})
    assert identity_hash({"a": 1}) != identity_hash({"a": 2})


def test_folders_without_a_run_are_told(tmp_path):
    with pytest.raises(UserError, match="holds no run: expected scores/part"):
        read_rows(tmp_path)
    with pytest.raises(UserError, match=r"holds no run\.json"):
        read_run(tmp_path)
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_run(tmp_path)


def test_a_run_resumed_with_nothing_to_compute_takes_thresholds_from_where_it_asks_now(tmp_path):
    fill(store(tmp_path)).write_run()
    asked = {**RUN, "config": {"thresholds_from": "elsewhere"}, "thresholds": {"wsol_v1": [0.2]}}
    store(tmp_path, run=asked).write_run()
    assert read_run(tmp_path)["config"] == {"thresholds_from": "elsewhere"}
    assert read_run(tmp_path)["thresholds"] == {"wsol_v1": [0.2]}
    store(tmp_path).write_run()
    assert read_run(tmp_path)["config"] == {"thresholds_from": None}
    assert "thresholds" not in read_run(tmp_path)
