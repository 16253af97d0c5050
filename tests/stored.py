"""Synthetic rows and a stored run, for the tests of everything that is derived from rows."""

import copy
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from PIL import Image

from gradcam_bench.config import Faithfulness
from gradcam_bench.localization.protocol import run_protocols

CELLS = (
    ("grad_cam", "layer3"),
    ("grad_cam", "layer4"),
    ("random", "input"),
    ("center", "input"),
)
CONF = Path(__file__).parents[1] / "conf" / "protocol"
NODES = {
    name: yaml.safe_load((CONF / f"{name}.yaml").read_text())
    for name in ("gradcam2017", "cam2016", "wsol_v1", "wsol_v2")
}
"""The protocols of the rows that are made here, as run.json stores them."""
PROTOCOLS = run_protocols({"config": {"protocols": NODES}})
QUALITY = {"layer3": -0.3, "layer4": 0.8, "random": -1.5, "center": -0.6}


def make_rows(n=60, *, cells=CELLS, seed=0, classes=6, sweep=False, curves=True, shift=0.0):
    rng = np.random.default_rng(seed)
    label = rng.integers(classes, size=n)
    top1 = (rng.random(n) < 0.8).astype(float)
    hard = rng.normal(0, 0.7, size=n)
    frames = []
    for method, layer in cells:
        quality = QUALITY.get(method, QUALITY.get(layer, 0.0)) + shift
        iou = 1 / (1 + np.exp(-(quality + hard + rng.normal(0, 0.5, size=n))))
        hit = (iou >= 0.5).astype(float)
        frame = {
            "image_id": [f"image{i:03d}" for i in range(n)],
            "label": label,
            "predicted": np.where(top1 == 1, label, (label + 1) % classes),
            "method": method,
            "layer": layer,
            "predicted_prob": rng.random(n),
            "top1_correct": top1,
            "top5_correct": np.maximum(top1, rng.random(n) < 0.7),
            "degenerate": (rng.random(n) < 0.03).astype(float),
            "error": None,
            "box_iou": iou,
            "gt_known_loc": hit,
            "top1_loc": hit * top1,
            "top5_loc": hit,
            "pointing_hit": (rng.random(n) < 0.3 + 0.5 * iou).astype(float),
            "energy_in_box": np.clip(iou + rng.normal(0, 0.1, size=n), 0, 1),
            **dict(
                zip(("box_x0", "box_y0", "box_x1", "box_y1"), (4.0, 5.0, 20.0, 24.0), strict=True)
            ),
            "box_iou@cam2016": 0.9 * iou,
            "gt_known_loc@cam2016": (0.9 * iou >= 0.5).astype(float),
        }
        if curves:
            x = np.linspace(0, 1, 29)
            deletion = np.exp(-x * (4 + rng.random((n, 1))))
            insertion = 1 - np.exp(-x * (3 + quality + rng.random((n, 1))))
            frame |= {"deletion_auc": deletion.mean(1), "insertion_auc": insertion.mean(1)}
            frame |= {"deletion_curve": list(deletion), "insertion_curve": list(insertion)}
        if sweep:
            off = np.abs(np.arange(256) / 255 - 0.3 + rng.normal(0, 0.1, size=(n, 1)))
            overlap = np.clip(iou[:, None] + 0.2 - off, 0, 1)
            bits = sum(
                (overlap >= level).astype(int) << k for k, level in enumerate((0.3, 0.5, 0.7))
            )
            frame["iou_hits@wsol_v1"] = [r.astype(np.uint8).tobytes() for r in overlap >= 0.5]
            frame["iou_hits@wsol_v2"] = [r.tobytes() for r in bits.astype(np.uint8)]
            frame |= {"max_level@wsol_v1": 255, "max_level@wsol_v2": 255}
        frames.append(pd.DataFrame(frame))
    return pd.concat(frames, ignore_index=True)


def break_image(rows, image_id, message):
    rows = rows.copy()
    broken = rows["image_id"] == image_id
    numbers = [c for c in rows.columns if pd.api.types.is_float_dtype(rows[c])]
    rows.loc[broken, numbers] = np.nan
    rows["error"] = rows["error"].astype(object).where(~broken, message)
    return rows


def make_pictures(rows, *, keep=12, size=32):
    rng = np.random.default_rng(1)
    lines = []
    for image_id in rows["image_id"].unique()[:keep]:
        photo = rng.integers(60, 200, size=(size, size, 3)).astype(np.uint8)
        photo[8:22, 8:22] = (200, 60, 40)
        buffer = io.BytesIO()
        Image.fromarray(photo).save(buffer, "JPEG")
        for method, layer in rows[["method", "layer"]].drop_duplicates().itertuples(index=False):
            heat = rng.integers(0, 256, size=(4, 4)).astype(np.uint8)
            lines.append(
                {
                    "image_id": image_id,
                    "method": method,
                    "layer": layer,
                    "jpeg": buffer.getvalue(),
                    "boxes": [[8.0, 8.0, 22.0, 22.0]],
                    "heatmap": heat.tobytes(),
                    "heatmap_h": 4,
                    "heatmap_w": 4,
                }
            )
    return pd.DataFrame(lines)


def run_json(model="resnet50", **changes):
    config = {
        "geometry": "squash",
        "seed": 0,
        "methods": ["grad_cam", "random", "center"],
        "protocols": copy.deepcopy(NODES),
        "precision": "float32",
        "faithfulness": dataclasses.asdict(Faithfulness()),
        "dataset": {"_target_": "gradcam_bench.data.imagenet.ImageNet", "root": "data"},
    }
    return {
        "model": model,
        "weights": "IMAGENET1K_V1",
        "layers": ["layer3", "layer4"],
        "class_names": [f"class <{i}> & co, alias" for i in range(6)],
        "n_images": 60,
        "seconds": 12.5,
        "device": "cpu",
        "command": "gradcam-bench model=resnet50 'x=<script>alert(1)</script>'",
        "commit": "0123456789ab",
        "config_hash": "feed",
        "data_fingerprint": "beef",
        "versions": {"torch": "2.9"},
        "config": config,
        **changes,
    }


def store_run(directory, rows, *, run=None, pictures=None):
    """Write a run as store.py lays it out."""
    (directory / "scores").mkdir(parents=True)
    pq.write_table(
        pa.Table.from_pandas(rows, preserve_index=False), directory / "scores/part-00000.parquet"
    )
    if pictures is not None:
        (directory / "gallery").mkdir()
        pq.write_table(
            pa.Table.from_pylist(pictures.to_dict("records")),
            directory / "gallery/part-00000.parquet",
        )
    (directory / "run.json").write_text(json.dumps(run or run_json()))
    return directory
