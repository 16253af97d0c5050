"""Write the stored results into the README; a test holds that nothing else stands there.

    python scripts/update_readme.py

A block between `<!-- begin KIND FOLDER -->` and `<!-- end -->` is made from results/FOLDER:
`output` is what the run printed, `table` its headline with intervals, `models` the joined table of
several runs, `zoo` the test accuracy of the embedded networks, `command` how it was made.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from gradcam_bench import markup, summary, tables
from gradcam_bench.metrics import METRICS
from gradcam_bench.store import read_run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
BLOCK = re.compile(r"(<!-- begin (\w+) (\S+) -->\n).*?(<!-- end -->)", re.S)
SHOWN = (
    "gt_known_loc_err",
    "loc_err_top1",
    "loc_err_top5",
    "mean_box_iou",
    "pointing_hit",
    "energy_in_box",
    "max_box_acc",
    "max_box_acc_v2",
    "deletion_auc",
    "insertion_auc",
    "average_drop",
    "road",
)


def output(folder: Path) -> str:
    return f"```\n{summary.describe(folder)}```\n"


def command(folder: Path) -> str:
    run = read_run(folder)
    threads = "one thread" if run["threads"] == 1 else f"{run['threads']} threads"
    return f"`{run['command']}` ({run['seconds'] / 60:.1f} minutes, {threads})\n"


def table(folder: Path) -> str:
    """Return methods as columns, metrics as rows: value and 95 % interval."""
    found = pd.read_csv(folder / "summary.csv")
    found["text"] = [markup.with_interval(row) for row in found.to_dict("records")]
    found["method"] = found["method"] + " @ " + found["layer"]
    wide = found.pivot_table(
        index="metric", columns="method", values="text", aggfunc="first", sort=False
    )
    wide = wide.loc[[name for name in SHOWN if name in wide.index]].reset_index()
    arrows = {"lower": " ↓", "higher": " ↑", "": ""}
    wide["metric"] = [f"`{name}`{arrows[METRICS[name].better]}" for name in wide["metric"]]
    return markup.to_markdown(wide)


def models(folder: Path) -> str:
    """Return one line a model: Grad-CAM's headline values."""
    lines = []
    for run in sorted(path.parent for path in folder.glob("*/run.json")):
        line = tables.headline(pd.read_csv(run / "summary.csv")).iloc[:1]
        line.insert(0, "model", read_run(run)["model"])
        lines.append(line)
    joined = pd.concat(lines).drop(columns=["degenerate_rate"], errors="ignore")
    return markup.to_markdown(joined)


def zoo(folder: Path) -> str:
    lines = []
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text())
        lines.append(
            {
                "network": found["name"],
                "test accuracy": f"{100 * found['test_accuracy']:.2f} %",
                "parameters": f"{found['parameters']:,}",
                "file": f"{found['bytes'] / 1000:.0f} kB",
            }
        )
    return markup.to_markdown(pd.DataFrame(lines))


KINDS = {"output": output, "command": command, "table": table, "models": models, "zoo": zoo}


def updated(text: str) -> str:
    """Return the README with every block made anew."""
    return BLOCK.sub(lambda m: m[1] + KINDS[m[2]](RESULTS / m[3]) + m[4], text)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(updated(readme.read_text()))
