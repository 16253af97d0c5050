"""The architecture as facts: who may import whom, and what stays out of the package."""

import ast
import importlib
import json
import pkgutil
import re
import subprocess
import sys

import pytest
import yaml
from hydra import compose, initialize_config_dir
from repository import ROOT

import gradcam_bench
from gradcam_bench.config import bind, config_dir, register

PACKAGE = ROOT / "gradcam_bench"
WORDS = {"errors", "names", "seeds"}  # import nothing of ours
COMPUTING = {"cam", "models", "faithfulness", "run"}  # the only folders that may import torch
# What each folder or single module may import besides itself and WORDS. A new one needs a line.
ALLOWED = {
    "errors": set(),
    "names": set(),
    "seeds": set(),
    "config": set(),
    "overrides": {"config"},
    "data": set(),
    "cam": set(),
    "store": set(),
    "models": {"cam"},
    "localization": {"store"},
    "faithfulness": {"cam", "models"},
    "run": {"cam", "config", "data", "faithfulness", "localization", "models", "store"},
    "analysis": {"config", "localization", "store"},
    "report": {"analysis", "localization", "store"},
    "multirun": {"report", "store"},
    "api": {"analysis", "config", "overrides", "run"},
    # A folder, because help, lists, status and explain are four things that share only the keys.
    "cli": {"analysis", "api", "config", "data", "models", "report", "run", "store"},
    "__main__": {"api", "cli", "config", "multirun", "overrides", "report", "run"},
    "__init__": {"cam", "report"},  # on first use
}
TEST_ONLY = {"captum", "pytorch_grad_cam", "torchcam", "cv2", "quantus", "pytest", "hypothesis"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports(path):
    """Return the modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: write the whole path of {node.module}"
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def place(path):
    """Return the folder of a module of the package, or its name where it stands alone."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_import_follows_the_flow_of_the_folders(path):
    own = place(path)
    assert own in ALLOWED, f"{own} is new: say in ALLOWED what it may import"
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("gradcam_bench.")}
    ours = {name for name in ours if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()}
    allowed = ALLOWED[own] | ({own} if own in WORDS else {own} | WORDS)
    assert ours <= allowed, f"{path} may not import {sorted(ours - allowed)}"


def test_the_folders_have_no_circle():
    waiting = {name: set(allowed) for name, allowed in ALLOWED.items()}
    while waiting:
        ready = {name for name, needs in waiting.items() if not needs & waiting.keys()}
        assert ready, f"a circle among {sorted(waiting)}"
        waiting = {name: needs for name, needs in waiting.items() if name not in ready}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_torch_and_test_packages_stay_where_they_belong(path):
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & (TEST_ONLY | {"scripts", "tests"})
    assert place(path) in COMPUTING or not tops & {"torch", "torchvision", "timm"}


def test_reporting_never_loads_torch():
    names = [
        module.name
        for module in pkgutil.walk_packages(gradcam_bench.__path__, "gradcam_bench.")
        if module.name.split(".")[1] not in COMPUTING
    ]
    assert "gradcam_bench.report.write" in names
    code = (
        f"import sys, {', '.join(names)}; assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_module_of_the_package_has_a_name_of_its_own_and_a_docstring():
    for module in pkgutil.walk_packages(gradcam_bench.__path__, "gradcam_bench."):
        if not module.name.endswith("__main__"):
            assert importlib.import_module(module.name).__doc__, module.name


def test_tests_lie_as_the_package_does():
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}
    assert folders <= {name for name in ALLOWED if (PACKAGE / name).is_dir()} | {"docs", "scripts"}


def test_no_image_of_a_data_set_is_committed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    files = listed.stdout.splitlines()
    assert not [f for f in files if re.search(r"\.jpe?g$", f, re.I)]
    # Pictures of drawn scenes may be kept, in the gallery's parts and in a report.
    for folder in {f.rpartition("/gallery/")[0] for f in files if "/gallery/part-" in f}:
        run = json.loads((ROOT / folder / "run.json").read_text())
        assert run["config"]["dataset"]["_target_"].endswith(".Shapes"), folder
    for report in [f for f in files if f.startswith("results/") and f.endswith("/report.html")]:
        run = json.loads((ROOT / report).with_name("run.json").read_text())
        text = (ROOT / report).read_text()
        pictures = "base64,/9j/" in text or '"jpeg": "/9j/' in text  # how a JPEG begins
        assert not pictures or run["config"]["dataset"]["_target_"].endswith(".Shapes"), report


GROUPS = ("model", "dataset", "protocol")
FILES = [f"{group}={path.stem}" for group in GROUPS for path in (ROOT / "conf" / group).glob("*")]


@pytest.mark.parametrize("choice", FILES)
def test_every_config_file_binds_to_the_signature_it_names(choice):
    group, _, name = choice.partition("=")
    register()
    needs = {
        "torchvision": ["model.name=resnet18"],
        "custom": ["model.factory=toys:Residual"],
        "imagenet": ["dataset.root=x"],
        "imagenette": ["dataset.root=x"],
        "tiny_imagenet": ["dataset.root=x"],
    }
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose("benchmark", overrides=[choice, *needs.get(name, [])])
    node = config.protocols[name] if group == "protocol" else config[group]
    if group == "dataset":
        node = {key: value for key, value in node.items() if key != "limit"}
    bind(node, group)


EXPERIMENTS = sorted((ROOT / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_composes_and_begins_with_its_command(path):
    lines = path.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert re.match(rf"# gradcam-bench experiment={path.stem}\b", lines[1])
    assert isinstance(yaml.safe_load(path.read_text()), dict)
    register()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        compose("benchmark", overrides=[f"experiment={path.stem}", "++dataset.root=x"])


def test_the_readmes_two_commands_are_what_ci_runs():
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"^(?:python3 -m venv|\.venv/bin/pip install).*$", text, re.M)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    assert all(command in ci for command in commands)
