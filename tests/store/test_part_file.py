"""Damage to stored parts: every kind is found, said, recomputed and refused in a report."""

import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from folders import OTHER, RUN, fill, store

from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.errors import UserError
from gradcam_bench.store import part_file
from gradcam_bench.store.part_file import encode, intact
from gradcam_bench.store.parts import read_gallery, read_rows
from gradcam_bench.store.schema import COLUMNS, GALLERY_COLUMNS, column_of


def rewritten(change):
    """Return a damage: the table changed, then written by pyarrow with all metadata kept."""

    def damage(path):
        table, metadata = pq.read_table(path), pq.read_metadata(path).metadata
        with pq.ParquetWriter(path, (table := change(table)).schema, compression="zstd") as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(
                {k: v for k, v in metadata.items() if k != b"ARROW:schema"}
            )

    return damage


def edited(table):
    values = table["box_iou"].to_pylist()
    values[0] = 0.99
    place = table.column_names.index("box_iou")
    return table.set_column(place, "box_iou", pa.array(values, pa.float64()))


def content(change):
    return lambda path: path.write_bytes(change(path.read_bytes()))


def scribbled(data, begin, count=16):
    begin %= len(data)
    end = min(begin + count, len(data))
    return data[:begin] + bytes(255 - x for x in data[begin:end]) + data[end:]


def flipped(data, place):
    at = int(place * (len(data) - 1))
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def without_metadata(path):
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)


def other_metadata(path):
    table, metadata = pq.read_table(path), pq.read_metadata(path).metadata
    with pq.ParquetWriter(path, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        kept = {k: v for k, v in metadata.items() if k != b"ARROW:schema"}
        writer.add_key_value_metadata({**kept, b"errors": b"7"})


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def of_another_run(path):
    there = fill(store(path.parents[2] / "other", run=OTHER))
    shutil.copy(there.parts.path("scores", 1), path)


DAMAGE = {
    "half of it": content(lambda data: data[: len(data) // 2]),
    "without its last byte": content(lambda data: data[:-1]),
    "with a byte more": content(lambda data: data + b"\0"),
    "empty": content(lambda data: b""),
    "zeros": content(lambda data: bytes(len(data))),
    "text": content(lambda data: b"image_id,box_iou\n"),
    "scribbled at the start": content(lambda data: scribbled(data, 0)),
    "scribbled in the middle": content(lambda data: scribbled(data, len(data) // 2)),
    "scribbled at the end": content(lambda data: scribbled(data, -16)),
    "one bit, early": content(lambda data: flipped(data, 0.1)),
    "one bit, late": content(lambda data: flipped(data, 0.9)),
    "a row less": rewritten(lambda table: table.slice(1)),
    "a row twice": rewritten(lambda table: pa.concat_tables([table, table.slice(0, 1)])),
    "rows in another order": rewritten(lambda table: table.take([1, 0, 2, 3])),
    "a column less": rewritten(lambda table: table.drop_columns(["box_iou"])),
    "a column renamed": rewritten(lambda table: table.rename_columns({"box_iou": "road"})),
    "an edited value": rewritten(edited),
    "written again": rewritten(lambda table: table),
    "without metadata": without_metadata,
    "with other metadata": other_metadata,
    "of another run": of_another_run,
    "another part": lambda path: shutil.copy(path.with_name("part-00000.parquet"), path),
    "its own gallery": lambda path: shutil.copy(path.parents[1] / "gallery" / path.name, path),
    "a folder": replaced_by(lambda path: (path / "x").mkdir(parents=True)),
    "a link to itself": replaced_by(lambda path: path.symlink_to(path)),
    "a pipe": replaced_by(os.mkfifo),
}


@pytest.mark.parametrize("kind", ["scores", "gallery"])
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_part_is_said_refused_in_a_report_and_computed_again(
    tmp_path, caplog, kind, damage
):
    directory = tmp_path / "run"
    first = fill(store(directory))
    first.write_run()
    whole = read_rows(directory), read_gallery(directory)
    path = first.parts.path(kind, 1)
    if kind == "gallery" and damage == "its own gallery":
        shutil.copy(first.parts.path("scores", 1), path)
    elif kind == "gallery" and ("column" in damage or damage == "an edited value"):
        rewritten(lambda table: table.drop_columns(["heatmap"]))(path)
    else:
        DAMAGE[damage](path)
    with pytest.raises(UserError, match=rf"{kind}/part-00001\.parquet .*Run the same command"):
        (read_rows if kind == "scores" else read_gallery)(directory)
    again = store(directory)
    assert again.missing_parts() == [1]
    assert not again.complete()
    assert len([m for m in caplog.messages if m.startswith(f"{path} ")]) == 1
    fill(again, 1)
    again.write_run()
    assert store(directory).missing_parts() == []
    assert read_rows(directory).equals(whole[0])
    assert read_gallery(directory).image_id.equals(whole[1].image_id)


def test_an_unreadable_part_is_said(tmp_path, monkeypatch):
    s = fill(store(tmp_path))
    read = part_file.Path.read_bytes

    def refused(path):
        if path.name == "part-00001.parquet":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(part_file.Path, "read_bytes", refused)
    assert s.missing_parts() == [1]
    with pytest.raises(UserError, match=r"part-00001.parquet cannot be read \(Permission denied\)"):
        read_rows(tmp_path)


def test_no_flipped_bit_passes(tmp_path):
    s = fill(store(tmp_path, n=1))
    data = bytearray(s.parts.path("scores", 0).read_bytes())
    assert intact(bytes(data))
    rng = np.random.default_rng(0)
    for place in range(len(data)):
        bit = 1 << int(rng.integers(8))
        data[place] ^= bit
        assert not intact(bytes(data)), place
        data[place] ^= bit


def test_a_part_is_checked_once_a_process_until_it_changes(tmp_path, monkeypatch):
    s = fill(store(tmp_path))
    counted = []
    monkeypatch.setattr(part_file, "intact", lambda data: counted.append(1) or intact(data))
    for _ in range(3):
        assert s.complete()
    s.write_run()
    read_rows(tmp_path)
    assert len(counted) == 2 * s.n_parts  # scores and gallery
    fill(s, 0)
    assert s.complete()
    assert len(counted) == 2 * s.n_parts + 2


def test_metadata_tell_what_a_part_is(tmp_path):
    s = fill(store(tmp_path, run={**RUN, "commit": "c", "device": "cpu"}), 1, seconds=1.5)
    found = pq.read_metadata(s.parts.path("scores", 1)).metadata
    assert {k.decode(): v.decode() for k, v in found.items() if k != b"ARROW:schema"} == {
        "kind": "scores",
        "config_hash": "a",
        "part": "1",
        "rows": "4",
        "images": "4",
        "errors": "0",
        "seconds": "1.5",
        "broken_files": "[]",
        "provenance": '{"commit": "c", "device": "cpu"}',
        "checksum": found[b"checksum"].decode(),
    }


def test_a_text_that_looks_like_a_checksum_confuses_nothing(tmp_path):
    s = store(tmp_path, n=1)
    text = "blake2b:" + "0" * 32
    mine = {"image_id": text, "method": text, "layer": text, "error": text}
    s.write_part(0, [mine], [], seconds=1)
    assert read_rows(tmp_path).error.tolist() == [text]


# --- The schema ----------------------------------------------------------------------------------


def test_every_metric_is_made_of_a_described_column():
    looked_up = ("box_acc_split", "box_acc_v2_split")  # from the thresholds of another run
    for metric in METRICS.values():
        if metric.column not in looked_up:
            column_of(metric.column)


def test_every_column_is_told_in_words():
    for column in [*COLUMNS.values(), *GALLERY_COLUMNS.values()]:
        assert column.meaning, column.name
        assert column.low <= column.high


def test_columns_stand_in_the_order_of_the_schema(tmp_path):
    s = store(tmp_path, n=1)
    mine = {"road": 0.1, "box_iou@cam2016": 0.2, "layer": "l", "method": "m", "image_id": "i"}
    s.write_part(0, [mine], [], seconds=1)
    names = list(read_rows(tmp_path).columns)
    assert names[:5] == ["image_id", "method", "layer", "label", "error"]
    assert names[-2:] == ["road", "box_iou@cam2016"]


def test_an_undefined_whole_number_is_null(tmp_path):
    s = store(tmp_path, n=1)
    mine = {"image_id": "i", "method": "m", "layer": "l", "predicted": float("nan")}
    s.write_part(0, [mine], [], seconds=1)
    assert read_rows(tmp_path).predicted.isna().all()
    assert encode([mine], part_file.Record("scores", "a", 0, 1, 1, 0, 1.0))
