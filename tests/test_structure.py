"""The architecture as facts: who may import whom, and what stays out of the package."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra import compose, initialize_config_dir

from gradcam_bench.config import bind, config_dir, register

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "gradcam_bench"
# Reporting reads stored rows: none of these may load torch, not even through another module.
WITHOUT_TORCH = [
    "data",
    "api",
    "calibration",
    "config",
    "errors",
    "figures",
    "findings",
    "frames",
    "localization",
    "level_sets",
    "markup",
    "max_box_acc",
    "metrics",
    "multirun",
    "overlays",
    "paired",
    "pictures",
    "protocols",
    "published",
    "pxap",
    "report",
    "runs",
    "stats",
    "store",
    "summary",
    "tables",
    "__main__",
]
# Leaves import nothing of ours but the words for errors.
LEAVES = ("errors", "stats", "data/example")
TEST_ONLY = {"captum", "pytorch_grad_cam", "torchcam", "cv2", "quantus", "pytest", "hypothesis"}


def imports(path):
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_reporting_never_loads_torch():
    names = ", ".join(f"gradcam_bench.{name}" for name in WITHOUT_TORCH)
    code = f"import sys, {names}; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_nothing_of_ours(leaf):
    ours = {name for name in imports(PACKAGE / f"{leaf}.py") if name.startswith("gradcam_bench")}
    assert ours <= {"gradcam_bench.errors"}


def test_nobody_imports_scripts_or_test_packages():
    for path in PACKAGE.rglob("*.py"):
        tops = {name.split(".")[0] for name in imports(path)}
        assert not tops & (TEST_ONLY | {"scripts", "tests"}), path


def test_no_image_of_a_data_set_is_committed():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert not [f for f in listed.stdout.splitlines() if re.search(r"\.(jpe?g|parquet)$", f, re.I)]


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
