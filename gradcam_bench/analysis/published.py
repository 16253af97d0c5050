"""Published numbers, and what stands between them and ours.

published.csv holds one number a line, in our units (errors, drops and MaxBoxAcc in percent, the
rest as shares). `confidence` says whether the number was "read" in a source or is "recalled" and
wants checking before it is quoted; `kind` whether it is the "paper"'s own or an independent
"reproduction"; `weights`, `geometry`, `protocol` and `images` how it was made, as far as is known.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from importlib import resources
from typing import Any

import pandas as pd

from gradcam_bench.errors import UserError
from gradcam_bench.names import CONTROLS

COLUMNS = (
    "suite", "paper", "model", "method", "layer", "metric", "ours", "ci_low", "ci_high", "n",
    "published", "reproduction", "difference", "comparable", "source",
)  # fmt: skip

_DATASETS = {
    "ImageNet": "ilsvrc_val",
    "Imagenette": "imagenette_val",
}

_POOLED = (
    "googlenet", "inception_v3", "resnet18", "resnet50", "resnet101", "densenet121",
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2",
)  # fmt: skip
"""Networks that end in global average pooling and one linear layer: there CAM is Grad-CAM."""

_PROTOCOL_FREE = ("cls_err_top1", "cls_err_top5")

_OURS = {
    "rise": ("deletion_auc", "insertion_auc"),
    "torchray": ("pointing_hit_per_class",),
    "soft mask": ("average_drop", "increase_in_confidence"),  # of image * map, as ours
}

_SWEPT = {"wsol_v1": "max_box_acc", "wsol_v2": "max_box_acc_v2"}


def published() -> pd.DataFrame:
    """Return every published number; text columns are empty, never NaN, where nothing is known."""
    source = resources.files("gradcam_bench.analysis").joinpath("published.csv")
    with source.open(encoding="utf-8") as lines:
        return pd.read_csv(lines, keep_default_na=False)


def suites() -> list[str]:
    """Return the names of the tables that numbers come from."""
    return list(dict.fromkeys(published()["suite"]))


def compare(
    summary: pd.DataFrame,
    run: Mapping[str, Any],
    *,
    suite: str | None = None,
    any_model: bool = False,
    keep_missing: bool = False,
) -> pd.DataFrame:
    """Set a run beside what papers report.

    Args:
        summary: from `tables.summarize`.
        run: the content of run.json.
        suite: one of `suites()`; all by default.
        any_model: also beside other networks' numbers, which the line then says.
        keep_missing: also published lines that this run has no number for.

    Returns:
        One line a published number: ours with its interval and number of images, the paper's, an
        independent reproduction's, the difference (ours - published), and `comparable`: "yes", or
        "no: " and every known reason.

    Raises:
        UserError: for an unknown suite.
    """
    table = published()
    if suite is not None:
        if suite not in set(table["suite"]):
            raise UserError(f"no suite is called {suite!r}; there are: {', '.join(suites())}")
        table = table[table["suite"] == suite]
    lines = []
    again = table[table["kind"] == "reproduction"]
    for row in _leading(table).to_dict("records"):
        if row["model"] not in ("", run.get("model")) and not any_model:
            continue
        ours = _ours(summary, run, row)
        if ours is None and not keep_missing:
            continue
        same = again[(again[["suite", "model", "method", "metric"]] == _key(row)).all(axis=1)]
        paper = row["kind"] == "paper"
        line: dict[str, Any] = {
            "suite": row["suite"],
            "paper": row["paper"],
            "model": row["model_in_paper"],
            "method": row["method"],
            "layer": row["layer"],
            "metric": row["metric"],
            "published": row["value"],
            "reproduction": same["value"].iloc[0] if len(same) and paper else float("nan"),
            "source": row["source"],
            "comparable": "not run here",
        }
        if ours is not None:
            reasons = _reasons(row, ours, run)
            line |= {
                "ours": ours["value"],
                "ci_low": ours["ci_low"],
                "ci_high": ours["ci_high"],
                "n": ours["n"],
                "layer": ours["layer"],
                "difference": ours["value"] - row["value"],
                "comparable": "no: " + "; ".join(reasons) if reasons else "yes",
            }
        lines.append(line)
    return pd.DataFrame(lines, columns=list(COLUMNS))


def _key(row: Mapping[Hashable, Any]) -> list[Any]:
    return [row[name] for name in ("suite", "model", "method", "metric")]


def _leading(table: pd.DataFrame) -> pd.DataFrame:
    """Keep the papers' numbers, and reproductions only of what no paper's number is known."""
    papers = table[table["kind"] == "paper"]
    known = {tuple(_key(row)) for row in papers.to_dict("records")}
    alone = [
        row["kind"] == "paper" or tuple(_key(row)) not in known for row in table.to_dict("records")
    ]
    return table[alone]


def _ours(
    summary: pd.DataFrame, run: Mapping[str, Any], row: Mapping[Hashable, Any]
) -> dict[Hashable, Any] | None:
    """Return our line for a published one: its protocol and layer where they were run."""
    protocols = list((run.get("config") or {}).get("protocols") or ["gradcam2017"])
    name = row["metric"]
    if row["protocol"] in protocols[1:] and row["protocol"] not in _SWEPT:
        name = f"{row['metric']}@{row['protocol']}"
    found = summary[(summary["metric"] == name) & summary["value"].notna()]
    if row["method"]:
        mine = {row["method"]}
        if row["method"] == "cam" and run.get("model") in _POOLED:
            mine.add("grad_cam")
        found = found[found["method"].isin(mine)]
    if row["layer"] and (found["layer"] == row["layer"]).any():
        found = found[found["layer"] == row["layer"]]
    elif not row["method"]:
        found = found[~found["method"].isin(CONTROLS)]
    return found.to_dict("records")[-1] if len(found) else None


def _reasons(
    row: Mapping[Hashable, Any], ours: Mapping[Hashable, Any], run: Mapping[str, Any]
) -> list[str]:
    """Return everything that is known to stand between a published number and ours."""
    config = run.get("config") or {}
    reasons = []
    if row["model"] and row["model"] != run.get("model"):
        reasons.append(f"another network ({row['model_in_paper']})")
    elif row["model"] and not _same_weights(row["weights"], run):
        stated = row["weights"] != "not stated"
        reasons.append(f"other weights ({row['weights']})" if stated else "weights not stated")
    if row["layer"] and row["layer"] != ours["layer"] and row["model"] == run.get("model"):
        reasons.append(f"other layer ({row['layer']})")
    target = str((config.get("dataset") or {}).get("_target_", "")).rpartition(".")[2]
    if _DATASETS.get(target, target) != row["dataset"]:
        reasons.append(f"other images ({row['dataset']})")
    elif ours["n"] < 0.99 * row["images"]:
        reasons.append(f"subset ({ours['n']:,} of {row['images']:,} images)")
    geometry = config.get("geometry")
    if not row["geometry"]:
        reasons.append("preprocessing not stated")
    elif geometry and geometry != row["geometry"]:
        reasons.append(f"other preprocessing ({row['geometry']} there, {geometry} here)")
    if not _same_protocol(row, ours, config):
        reasons.append(f"other protocol ({row['protocol']})")
    if row["confidence"] != "read":
        reasons.append("recalled rather than read")
    return [*reasons, row["note"]] if row["note"] else reasons


def _same_weights(weights: str, run: Mapping[str, Any]) -> bool:
    mine = str(run.get("weights") or "")
    if weights.startswith("torchvision"):
        return "IMAGENET1K_V1" in mine and not (
            weights.endswith("DEFAULT") and run.get("model") in ("resnet50", "mobilenet_v3_large")
        )
    return weights == "TensorFlow" and str(run.get("model", "")).startswith("efficientnet_lite")


def _same_protocol(
    row: Mapping[Hashable, Any], ours: Mapping[Hashable, Any], config: Mapping[str, Any]
) -> bool:
    if row["metric"] in _PROTOCOL_FREE:
        return True
    protocol = row["protocol"]
    if protocol in _SWEPT:
        return row["metric"] == _SWEPT[protocol]
    if protocol == "rise":
        steps = (config.get("faithfulness") or {}).get("steps")
        return row["metric"] in _OURS["rise"] and steps in (None, 28)
    if protocol in _OURS:
        return row["metric"] in _OURS[protocol]
    main = next(iter(config.get("protocols") or {}), "gradcam2017")
    return protocol == (str(ours["metric"]).partition("@")[2] or main)
