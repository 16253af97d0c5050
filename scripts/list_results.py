"""Write results/README.md: a line a folder, saying what it shows; a test compares it.

    python scripts/list_results.py

Every number comes from the files that are kept in the repository: run.json and summary.csv of a
run, joined.csv and paired.csv of several, comparison.csv of a paper's table, check.csv of the
self-check, the embedded networks' json files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from gradcam_bench.analysis import best
from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.report import answers
from gradcam_bench.report.one_line import shows
from gradcam_bench.store.parts import read_run

RESULTS = Path(__file__).parents[1] / "results"
SCRATCH = ("shapes",)
"""Where the default run writes; kept out of the repository."""
DATA = (".csv", ".json", ".png")
PARTS = ("scores", "gallery", "tables", "figures")
HEAD = """# Results

What each folder shows, in numbers read from its files by `python scripts/list_results.py`.
Brackets are 95 % intervals; `random` and `center` are controls that see no network.

"""


def run(folder: Path) -> tuple[str, str]:
    stored = read_run(folder)
    dataset = stored["config"]["dataset"]["_target_"].rpartition(".")[2]
    text = shows(pd.read_csv(folder / "summary.csv"))
    return f"{stored['model']} on {dataset}, {text}", stored["command"]


def joined(folder: Path) -> tuple[str, str]:
    summary = pd.read_csv(folder / "joined.csv")
    text = shows(summary)
    paired = pd.read_csv(folder / "paired.csv")
    metric, _ = best.best_line(summary)
    lead = answers.lead(metric, paired[paired["metric"] == metric.name])
    if lead is not None:
        text += f" Lead over the next: {lead.short}."
    note = folder / "joined.json"
    return text, json.loads(note.read_text())["command"] if note.exists() else ""


def papers(folder: Path) -> tuple[str, str]:
    """Return, by method and metric, the range of ours and of the published numbers."""
    table = pd.read_csv(folder / "comparison.csv")
    parts = []
    for (method, name), lines in table.groupby(["method", "metric"], sort=False):
        if not str(name).startswith("cls_err"):
            parts.append(f"{method}, {METRICS[str(name)].title}: {_against(str(name), lines)}")
    networks = ", ".join(dict.fromkeys(table["ours_network"]))
    count = (table["comparable"] == "yes").sum()
    text = f"{networks} beside {table['paper'].iloc[0]}: {'; '.join(parts)}. "
    text += f"{count} of {len(table)} numbers are strictly comparable; the reasons stand there."
    made = re.match(r"Made by `(.*)`\.", (folder / "comparison.md").read_text())
    return text, made[1] if made else ""


def _against(name: str, lines: pd.DataFrame) -> str:
    """Return "39.80 to 46.20 % here, 56.50 to 68.30 % there"."""
    metric = METRICS[name]
    spans = []
    for column in ("ours", "published"):
        low, high = lines[column].min(), lines[column].max()
        end = metric.text(high)
        spans.append(end if low == high else f"{metric.number(low)} to {end}")
    return f"{spans[0]} here, {spans[1]} there"


def self_check(folder: Path) -> tuple[str, str]:
    check = pd.read_csv(folder / "check.csv")
    steps = check[check["step"] >= 0].groupby("step").mean(numeric_only=True)
    controls = check[check["step"] < 0].groupby("layer").mean(numeric_only=True)
    first, last = steps.iloc[0], steps.iloc[-1]
    text = (
        f"Randomising {len(steps) - 1} layers from the output on lowers the rank correlation with "
        f"the trained network's maps from {first['spearman']:.2f} to {last['spearman']:.2f}, box "
        f"IoU from {first['box_iou']:.3f} to {last['box_iou']:.3f} and insertion AUC from "
        f"{first['insertion_auc']:.3f} to {last['insertion_auc']:.3f}"
    )
    levels = [
        f"{name} {line['box_iou']:.3f} and {line['insertion_auc']:.3f}"
        for name, line in controls.iterrows()
    ]
    return f"{text} ({', '.join(levels)}).", "python scripts/self_check.py"


def zoo(folder: Path) -> tuple[str, str]:
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    parts = [f"{net['name']} {100 * net['test_accuracy']:.2f} %" for net in found]
    return f"Accuracy on unseen scenes: {', '.join(parts)}.", "python scripts/train_zoo.py"


def speed(folder: Path) -> tuple[str, str]:
    table = pd.read_csv(folder / "speed.csv")

    def span(section: str, contender: str, *, inverse: bool = False) -> str:
        chosen = (table["section"] == section) & (table["contender"] == contender)
        times = table.loc[chosen, "times_ours"] ** (-1 if inverse else 1)
        ends = [f"{times.min():.2f}", f"{times.max():.2f}"]
        return " to ".join(dict.fromkeys(ends))

    told = {
        "maps": f"One Grad-CAM costs {span('maps', 'forward', inverse=True)} forwards; grad-cam "
        f"takes {span('maps', 'grad-cam')} times as long, captum {span('maps', 'captum')}, "
        f"torchcam {span('maps', 'torchcam')}.",
        "layers": f"All layers cost {span('layers', 'forward', inverse=True)} forwards; captum, "
        f"layer by layer, takes {span('layers', 'captum')} times as long.",
        "faithfulness": "Deletion and insertion cost "
        f"{span('faithfulness', 'bare scorer', inverse=True)} of their bare forwards; RISE's loop "
        f"takes {span('faithfulness', 'rise')} times as long.",
        "run": f"A whole run costs {span('run', 'its forwards', inverse=True)} of its forwards.",
    }
    measured = [text for section, text in told.items() if section in set(table["section"])]
    return " ".join(measured), "python scripts/benchmark_speed.py"


# The first file that a folder has says what it is.
KINDS: dict[str, Callable[[Path], tuple[str, str]]] = {
    "summary.csv": run,
    "joined.csv": joined,
    "comparison.csv": papers,
    "check.csv": self_check,
    "speed.csv": speed,
    "tiny_resnet.json": zoo,
}


def other(folder: Path) -> tuple[str, str]:
    names = sorted(path.name for path in folder.iterdir() if path.suffix in DATA)
    return f"Files: {', '.join(names)}.", ""


def folders() -> list[Path]:
    """Return every folder of results that holds something, in order."""
    found = {path.parent for path in RESULTS.rglob("*") if path.suffix in DATA}
    kept = [path.relative_to(RESULTS) for path in found - {RESULTS}]
    return [
        RESULTS / path
        for path in sorted(kept)
        if path.parts[0] not in SCRATCH
        and not set(PARTS) & set(path.parts)
        and (
            (RESULTS / path / "summary.csv").exists() or not (RESULTS / path / "run.json").exists()
        )
    ]


def line(folder: Path) -> str:
    """Return the table's line of a folder."""
    kind = next((KINDS[name] for name in KINDS if (folder / name).exists()), other)
    text, command = kind(folder)
    name = folder.relative_to(RESULTS).as_posix()
    cells = (f"[{name}]({name})", text, f"`{command}`" if command else "")
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def listed(chosen: list[Path]) -> str:
    """Return results/README.md on these folders."""
    head = f"{HEAD}| folder | what it shows | made by |\n|---|---|---|\n"
    return head + "".join(f"{line(folder)}\n" for folder in chosen)


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(listed(folders()), encoding="utf-8")
