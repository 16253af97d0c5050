import pytest

from gradcam_bench.errors import UserError
from gradcam_bench.store.parts import Store, identity_hash, read_gallery, read_rows, read_run

RUN = {"config_hash": "a", "identity": {"seed": 0, "model": {"name": "x"}}, "config": {}}


def store(path, n=10, part=4, run=None, **options):
    return Store(path, run or RUN, n_images=n, part_size=part, **options)


def rows(images):
    return [
        {"image_id": f"i{i}", "score": i / 2, "curve": [0.0, 1.0], "error": None} for i in images
    ]


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
    for part in (2, 0):
        s.write_part(part, rows(s.images_of(part)), [], errors=0, seconds=1.5)
    again = store(tmp_path)
    assert again.missing_parts() == [1]
    assert not again.complete()
    again.write_part(1, rows(s.images_of(1)), [], errors=0, seconds=2)
    assert again.complete()
    again.write_run()
    assert read_rows(tmp_path).image_id.tolist() == [f"i{i}" for i in range(10)]
    assert read_rows(tmp_path).curve[3].tolist() == [0.0, 1.0]
    assert read_run(tmp_path)["seconds"] == 5.0
    assert read_run(tmp_path)["complete"] is True


def test_a_part_with_broken_examples_is_tried_again(tmp_path):
    s = store(tmp_path)
    s.write_part(1, rows(s.images_of(1)), [], errors=1, seconds=1)
    assert store(tmp_path).missing_parts() == [0, 1, 2]


def test_an_interrupted_write_leaves_no_part(tmp_path, monkeypatch):
    s = store(tmp_path)

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", cut)
    with pytest.raises(KeyboardInterrupt):
        s.write_part(0, rows(s.images_of(0)), [], errors=0, seconds=1)
    monkeypatch.undo()
    assert list((tmp_path / "scores").iterdir()) == []


def test_another_config_is_refused_by_name_unless_overwritten(tmp_path):
    first = store(tmp_path)
    first.write_part(0, rows(range(4)), rows(range(4)), errors=0, seconds=1)
    other = {**RUN, "config_hash": "b", "identity": {"seed": 1, "model": {"name": "x"}}}
    with pytest.raises(UserError, match=r"another config \(seed: 0 there, 1 now\).*overwrite=true"):
        store(tmp_path, run=other)
    assert len(read_rows(tmp_path)) == 4
    (tmp_path / "notes.txt").write_text("the user's own")
    fresh = store(tmp_path, run=other, overwrite=True)
    assert fresh.missing_parts() == [0, 1, 2]
    assert (tmp_path / "notes.txt").exists()
    assert read_run(tmp_path)["config_hash"] == "b"
    with pytest.raises(UserError, match="holds no run"):
        read_gallery(tmp_path)


def test_scores_without_a_run_are_not_trusted(tmp_path):
    first = store(tmp_path)
    first.write_part(0, rows(range(4)), [], errors=0, seconds=1)
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"no run\.json"):
        store(tmp_path)
    assert store(tmp_path, overwrite=True).missing_parts() == [0, 1, 2]


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
