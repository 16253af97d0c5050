"""Every column that a stored row may have: its type, unit and range, who writes it, when undefined.

A row is one image, method and layer. A column that is not described here cannot be stored: to add
one, add its line to `COLUMNS` (or to `GALLERY_COLUMNS`, for the kept pictures).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from gradcam_bench.errors import nearest

_TEXT, _INT, _FLOAT, _BYTES = pa.string(), pa.int64(), pa.float64(), pa.binary()

_CURVE, _BOXES = pa.list_(_FLOAT), pa.list_(pa.list_(_FLOAT))

_INF = math.inf


@dataclass(frozen=True)
class Column:
    """One column of the stored rows.

    Attributes:
        name: its name; where `per_protocol`, a further protocol P writes "NAME@P".
        type: as Arrow stores it. Null: not computed, or the image is broken. NaN: undefined.
        writer: the part of a run that computes it.
        meaning: one line, with the unit where there is one.
        low: the smallest possible value; meaningless where the type is no number.
        high: the largest possible value.
        undefined: when there is no value although the image was scored; empty: never.
        per_protocol: whether every localization protocol writes its own.
        always: whether every part has the column, even one whose images are all broken.
    """

    name: str
    type: pa.DataType
    writer: Literal["loop", "data set", "network", "localization", "faithfulness", "gallery"]
    meaning: str
    low: float = -_INF
    high: float = _INF
    undefined: str = ""
    per_protocol: bool = False
    always: bool = False


def _id(name: str, writer: Any, meaning: str, kind: pa.DataType = _TEXT) -> Column:
    return Column(name, kind, writer, meaning, always=True)


def _net(name: str, meaning: str, kind: pa.DataType = _FLOAT, high: float = 1.0) -> Column:
    return Column(name, kind, "network", meaning, 0.0, high, "logits not finite", always=True)


def _box(name: str, meaning: str, undefined: str, high: float = 1.0) -> Column:
    return Column(name, _FLOAT, "localization", meaning, 0.0, high, undefined, per_protocol=True)


def _map(name: str, meaning: str, undefined: str) -> Column:
    return Column(name, _FLOAT, "localization", meaning, 0.0, 1.0, undefined)


def _faith(name: str, meaning: str, low: float = -_INF, high: float = _INF) -> Column:
    return Column(name, _FLOAT, "faithfulness", meaning, low, high, "map or logits not finite")


_ONE_SEEN = "the input does not show both objects"
_NO_BOX, _NO_MASK, _NO_MAP = "no box is known", "no mask is known", "the map is nowhere positive"

_ALL = (
    _id("image_id", "data set", "name of the image, unique in the data set"),
    _id("method", "loop", "what made the map, or a control"),
    _id("layer", "loop", "module path of the layer; `input` for controls"),
    _id("label", "data set", "index of the class asked for", _INT),
    _id("error", "loop", "why the image is broken; null where it is not"),
    Column(
        "error_kind",
        _TEXT,
        "loop",
        "what is broken: image, annotation, box or label; null where nothing is",
    ),
    Column("error_path", _TEXT, "loop", "the file to mend, where the image is broken and has one"),
    Column(
        "group",
        _TEXT,
        "data set",
        "images of one group are resampled together; null: the image is its own group",
    ),
    _net("predicted", "index of the class with the largest logit", _INT, _INF),
    _net("predicted_prob", "its probability"),
    _net("top1_correct", "1 where the prediction is the label, else 0"),
    _net("top5_correct", "1 where the label is among the five largest logits, else 0"),
    Column(
        "boxes_clipped",
        _INT,
        "data set",
        "how many true boxes leave the image by more than half a pixel and were cut to it",
        0,
    ),
    Column("object_area", _FLOAT, "data set", "share of the input that the boxes cover", 0.0, 1.0),
    # Localization: without a suffix those of the first protocol.
    _box("degenerate", "1 where the map holds no box (flat, not finite), else 0", ""),
    _box("box_iou", "IoU of the box with the best true box", _NO_BOX),
    _box("gt_known_loc", "1 where that IoU reaches the protocol's level, else 0", _NO_BOX),
    _box("top1_loc", "gt_known_loc * top1_correct", f"{_NO_BOX}, or logits not finite"),
    _box("top5_loc", "gt_known_loc * top5_correct", f"{_NO_BOX}, or logits not finite"),
    *(
        _box(f"box_{end}", "the box, xyxy half-open, pixels of the input", _NO_MAP, _INF)
        for end in ("x0", "y0", "x1", "y1")
    ),
    _box("mask_iou", "IoU of the thresholded map with the mask", _NO_MASK),
    Column(
        "iou_hits",
        _BYTES,
        "localization",
        "256 bytes: bit k of byte q says that the box at 8-bit level q reaches the k-th IoU level",
        undefined=_NO_BOX,
        per_protocol=True,
    ),
    Column(
        "max_level",
        _INT,
        "localization",
        "largest value of the 8-bit map; 0 where degenerate",
        0,
        255,
        per_protocol=True,
    ),
    Column(
        "pxap_counts",
        _BYTES,
        "localization",
        "pixels of the object and of the rest at each level of the map",
        undefined=_NO_MASK,
    ),
    _map("pointing_hit", "1 where the map's maximum lies in a box (15 pixels tolerated)", _NO_BOX),
    _map("energy_in_box", "share of the map's sum inside the boxes", _NO_MAP),
    _map("energy_in_mask", "share of the map's sum on the mask", _NO_MAP),
    _map(
        "discrimination_hit", "1 where more energy lies on the label than on the other", _ONE_SEEN
    ),
    _map(
        "discrimination_share", "energy on the label / energy on both", f"{_ONE_SEEN}, or no energy"
    ),
    # Faithfulness: probabilities, or logits with faithfulness.score=logit.
    _faith("deletion_auc", "area under the deletion curve"),
    _faith("insertion_auc", "area under the insertion curve"),
    Column("deletion_curve", _CURVE, "faithfulness", "score after each step of deletion"),
    Column("insertion_curve", _CURVE, "faithfulness", "score after each step of insertion"),
    _faith("average_drop", "share of the probability lost by masking with the map", 0.0, 1.0),
    _faith("increase_in_confidence", "1 where masking raises the probability, else 0", 0.0, 1.0),
    _faith("average_gain", "share of the possible gain won by masking with the map", 0.0, 1.0),
    _faith("log_odds_drop", "loss of log(p / (1 - p)) by masking with the map"),
    _faith("road", "(road_lerf - road_morf) / 2", -0.5, 0.5),
    _faith("road_morf", "mean probability after imputing the most relevant pixels", 0.0, 1.0),
    _faith("road_lerf", "mean probability after imputing the least relevant pixels", 0.0, 1.0),
)

COLUMNS = {column.name: column for column in _ALL}
"""The columns of scores/part-*.parquet by name, in the order in which they are stored."""

GALLERY_COLUMNS = {
    name: Column(name, kind, "gallery", meaning, always=True)
    for name, kind, meaning in (
        ("image_id", _TEXT, "name of the image"),
        ("method", _TEXT, "what made the map"),
        ("layer", _TEXT, "module path of the layer"),
        ("jpeg", _BYTES, "the network's input as a JPEG file"),
        ("boxes", _BOXES, "true boxes, xyxy half-open, pixels of the input"),
        ("heatmap", _BYTES, "the map after ReLU, 8 bit, row by row, its maximum 255"),
        ("heatmap_h", _INT, "lines of the map"),
        ("heatmap_w", _INT, "columns of the map"),
    )
}
"""The columns of gallery/part-*.parquet by name."""


def column_of(name: str, known: Mapping[str, Column] = COLUMNS) -> Column:
    """Return the description of a column, `NAME` or `NAME@PROTOCOL`.

    Raises:
        AssertionError: nothing describes it; this is a mistake in the code, not a user's.
    """
    base, at, _ = name.partition("@")
    if base not in known or (at and not known[base].per_protocol):
        raise AssertionError(
            f"no column {name!r} is described, so it cannot be stored.{nearest(base, list(known))} "
            "Add its line to gradcam_bench/store/schema.py."
        )
    return known[base]


def arrow_schema(names: Iterable[str], known: Mapping[str, Column] = COLUMNS) -> pa.Schema:
    """Return the Arrow schema of columns, in the schema's order and those of protocols after it."""
    wanted = {name for name, column in known.items() if column.always} | set(names)
    place = {name: i for i, name in enumerate(known)}
    types = {name: column_of(name, known).type for name in wanted}
    ordered = sorted(types, key=lambda n: (n.partition("@")[2], place[n.partition("@")[0]]))
    return pa.schema([(name, types[name]) for name in ordered])


def to_table(rows: Sequence[Mapping[str, Any]], known: Mapping[str, Column] = COLUMNS) -> pa.Table:
    """Return rows as a table that holds every value of every row.

    Args:
        rows: mappings of column to value; a row may lack columns that others have.
        known: the descriptions of the columns.

    Raises:
        AssertionError: a row has a column that nothing describes, or a value would be lost.
    """
    kinds = {name: column_of(name, known).type for row in rows for name in row}
    filled = [
        {name: value for name, value in row.items() if not _undefined(value, kinds[name])}
        for row in rows
    ]
    given = Counter(name for row in filled for name in row)
    schema = arrow_schema(kinds, known)
    columns = [_array(field, [row.get(field.name) for row in filled]) for field in schema]
    table = pa.Table.from_arrays(columns, schema=schema)
    for name in {*table.column_names, *given}:
        kept = table.num_rows - table[name].null_count if name in table.column_names else 0
        if kept != given[name]:
            raise AssertionError(f"column {name!r}: the rows have {given[name]} values, not {kept}")
    return table


def _undefined(value: Any, kind: pa.DataType) -> bool:
    """Return whether a value is stored as null: None, and NaN where the column holds integers."""
    return value is None or (pa.types.is_integer(kind) and value != value)


def _array(field: pa.Field, values: list[Any]) -> pa.Array:
    try:
        stored = pa.array(values, field.type)
    except (pa.ArrowException, OverflowError) as error:
        raise AssertionError(f"column {field.name!r} is {field.type}, but: {error}") from error
    if pa.types.is_integer(field.type) and stored.to_pylist() != values:  # Arrow cuts 1.5 to 1
        raise AssertionError(f"column {field.name!r} holds whole numbers, but was given others")
    return stored


def typed(table: pa.Table, known: Mapping[str, Column] = COLUMNS) -> pa.Table:
    """Return a stored table with the types described here, so that the tables of parts join.

    Older versions took the types from a part's own values, strings where it had none.
    """
    columns = {}
    for name in table.column_names:
        column, described = table[name], known.get(name.partition("@")[0])
        if described is not None and column.type != described.type:
            if column.null_count == len(column):
                column = pa.chunked_array([pa.nulls(len(column), described.type)])
            else:
                with suppress(pa.ArrowException):
                    column = column.cast(described.type)
        columns[name] = column
    return pa.table(columns)
