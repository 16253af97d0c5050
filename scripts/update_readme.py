"""Write stored results and definitions into the README and docs/; tests compare both.

    python scripts/update_readme.py

A block between `<!-- begin KIND NAME -->` and `<!-- end -->` is made anew. From results/NAME:
`output` is what the run printed, `table` its headline with intervals, `models` the joined table of
several runs, `zoo` the test accuracy of the embedded networks, `command` how it was made,
`controls` what both controls score, `speed` what benchmark_speed.py measured. From the code:
`metric` describes the metric NAME, `overview` lists all metrics, `protocols` the knobs of all
files in conf/protocol, `knobs` what each means. From docs/interval_coverage.csv: `coverage`.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from pathlib import Path

import pandas as pd
import yaml

from gradcam_bench.analysis.metrics import METRICS, metric_of, metrics_with, names_with
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.names import CONTROLS
from gradcam_bench.report import tables, write
from gradcam_bench.store.parts import read_run

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "metrics.md")
BLOCK = re.compile(r"(<!-- begin (\w+) (\S+) -->\n).*?(<!-- end -->)", re.S)
BARE = ("forward", "bare scorer", "its forwards", "float32")
"""Contenders of benchmark_speed.py that only run the network."""


def output(folder: Path) -> str:
    return f"```\n{write.describe(folder)}```\n"


def command(folder: Path) -> str:
    return f"`{read_run(folder)['command']}`\n"


def table(folder: Path) -> str:
    """Return methods as columns, metrics as rows: value and 95 % interval."""
    found = pd.read_csv(folder / "summary.csv")
    shown = names_with("readme", found["metric"])
    found = found[found["metric"].isin(shown)]
    found["text"] = _texts(found)
    found["method"] = found["method"] + " @ " + found["layer"]
    wide = found.pivot_table(
        index="metric", columns="method", values="text", aggfunc="first", sort=False
    )
    wide = wide.loc[shown].reset_index()
    wide["metric"] = [f"`{name}`{metric_of(name).arrow}" for name in wide["metric"]]
    return tables.to_markdown(wide)


def _texts(lines: pd.DataFrame) -> list[str]:
    """Return value and interval of each line of a summary as text."""
    return [
        metric_of(line["metric"]).estimate_text(line["value"], line["ci_low"], line["ci_high"])
        for line in lines.to_dict("records")
    ]


def models(folder: Path) -> str:
    """Return one line a model: the headline values of its first method and layer."""
    joined = tables.headline(pd.read_csv(folder / "joined.csv"))
    first = joined[~joined["method"].isin(CONTROLS)].drop_duplicates("run").sort_values("run")
    return tables.to_markdown(
        first.rename(columns={"run": "model"}).drop(columns=["degenerate_rate"], errors="ignore")
    )


def speed(folder: Path) -> str:
    """Return a line a comparison: our time, in units of a bare forward, and the others' in ours."""
    found = pd.read_csv(folder / "speed.csv")
    lines = []
    for (_, case), part in found.groupby(["section", "case"], sort=False):
        times = part.set_index("contender")["times_ours"]
        bare = [name for name in times.index if name in BARE]
        others = [name for name in times.index[1:] if name not in BARE]
        seconds = part["seconds"].iloc[0]
        lines.append(
            {
                "work": case,
                "ours": f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.0f} ms",
                "ours / forwards": f"{1 / times[bare[0]]:.2f}" if bare else "",
                "the others / ours": ", ".join(f"{name} {times[name]:.2f}" for name in others),
            }
        )
    return tables.to_markdown(pd.DataFrame(lines))


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
    return tables.to_markdown(pd.DataFrame(lines))


def controls(folder: Path) -> str:
    """Return what both controls score where theory has something to say."""
    found = pd.read_csv(folder / "summary.csv")
    names = metrics_with("theory")
    found = found[found["method"].isin(CONTROLS) & found["metric"].isin(names)]
    found["text"] = _texts(found)
    wide = found.pivot(index="metric", columns="method", values="text").loc[names]
    return tables.to_markdown(wide[list(CONTROLS)].reset_index())


def metric(name: str) -> str:
    """Return one line of what a metric is and one of its facts."""
    found = METRICS[name]
    unit = f" {found.unit}" if found.unit else ""
    better = f"{found.better} is better" if found.better else "neither is better"
    facts = [f"{found.low:g} to {found.high:g}{unit}", better, INTERVALS[found.kind], found.source]
    told = found.definition[0].upper() + found.definition[1:]
    return f"{told}.\n\n*{'; '.join(facts)}; column `{found.column}`*\n"


INTERVALS = {
    "proportion": "Clopper-Pearson interval of a share",
    "mean": "percentile bootstrap of a mean",
    "class_mean": "Wilson interval from the variance of the mean of class means",
    "oracle": "basic bootstrap, threshold chosen again in each resample",
    "pooled": "percentile bootstrap over images of what their pixels give together",
}


def coverage(_: str) -> str:
    """Return what scripts/interval_coverage.py simulated: a line a population."""
    found = pd.read_csv(ROOT / "docs" / "interval_coverage.csv")
    found["coverage (%)"] = [f"{value:.1f}" for value in found["coverage (%)"]]
    found["relative width"] = [f"{value:.2f}" for value in found["relative width"]]
    return tables.to_markdown(found.drop(columns="data sets"))


def overview(_: str) -> str:
    lines = []
    for found in METRICS.values():
        unit = f" {found.unit}" if found.unit else ""
        lines.append(
            {
                "metric": f"[`{found.name}`](#{found.name})",
                "in short": found.title,
                "range": f"{found.low:g} to {found.high:g}{unit}",
                "better": found.better or "-",
            }
        )
    return tables.to_markdown(pd.DataFrame(lines))


def protocols(_: str) -> str:
    """Return a line a knob, a column a protocol."""
    files = sorted((ROOT / "conf" / "protocol").glob("*.yaml"))
    nodes = {path.stem: yaml.safe_load(path.read_text()) for path in files}
    names = [field.name for field in dataclasses.fields(Protocol) if field.name != "name"]
    lines = [
        {"knob": f"`{name}`"} | {key: _plain(node[name]) for key, node in nodes.items()}
        for name in names
    ]
    return tables.to_markdown(pd.DataFrame(lines))


def _plain(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def knobs(_: str) -> str:
    """Return what each knob means, from the docstring of Protocol."""
    text = (inspect.getdoc(Protocol) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", text, re.M | re.S)
    return "".join(f"- `{name}`: {' '.join(words.split())}\n" for name, words in entries)


STORED = {
    "output": output,
    "command": command,
    "table": table,
    "models": models,
    "zoo": zoo,
    "speed": speed,
    "controls": controls,
}
DEFINED = {
    "metric": metric,
    "overview": overview,
    "coverage": coverage,
    "protocols": protocols,
    "knobs": knobs,
}


def _made(kind: str, name: str) -> str:
    return DEFINED[kind](name) if kind in DEFINED else STORED[kind](RESULTS / name)


def updated(text: str) -> str:
    """Return a page with every block made anew."""
    return BLOCK.sub(lambda m: m[1] + _made(m[2], m[3]) + m[4], text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(updated(page.read_text()))
