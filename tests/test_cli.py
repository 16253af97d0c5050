"""The command as users type it: exit codes, one message, no traceback."""

import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from repository import ROOT

QUICK = ["dataset.length=6", "faithfulness.steps=4", "scoring=torch"]


def cli(*arguments, cwd):
    environment = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error::DeprecationWarning:gradcam_bench",
            "-m",
            "gradcam_bench",
            *arguments,
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )


def test_the_default_run_writes_what_the_design_promises(tmp_path):
    done = cli(*QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "results" / "shapes" / "tiny_resnet"
    for name in ("scores/part-00000.parquet", "summary.csv", "run.json", "report.html"):
        assert (out / name).is_file(), name
    assert list((out / "figures").glob("*.png"))
    summary = pd.read_csv(out / "summary.csv")
    assert list(summary.columns) == (
        ["method", "layer", "metric", "value", "ci_low", "ci_high", "n", "n_undefined"]
    )
    promised = [
        "cls_err_top1",
        "cls_err_top5",
        "gt_known_loc_err",
        "loc_err_top1",
        "loc_err_top5",
        "mean_box_iou",
        "pointing_hit",
        "energy_in_box",
        "deletion_auc",
        "insertion_auc",
    ]
    assert set(promised) <= set(summary.metric)
    assert "grad_cam" in done.stdout
    assert "random" in done.stdout
    # Nothing beside the output folder: no log, no outputs/, no .hydra.
    assert [p.name for p in tmp_path.iterdir()] == ["results"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model=resnet51"], "Could not find 'model/resnet51'. Nearest: resnet50"),
        (["model=resnet51"], "model=torchvision model.name=NAME"),
        (["dataset=imagnet"], "Could not find 'dataset/imagnet'"),
        (["protocol=gradcam2016"], "Could not find 'protocol/gradcam2016'"),
        (["datset.limit=3"], "datset"),
        (["dataset.limti=3"], "limti"),
        (["batch_size=many"], "batch_size"),
        (["methods=[gradcam]"], "Nearest: grad_cam"),
        (["+mdoel=vgg16"], "There is no key 'mdoel'. Nearest: model."),
        (["+foo=1"], "There is no key 'foo'"),
        (["++x=1"], "There is no key 'x'"),
        (["+faithfulness.step=3"], "Nearest: faithfulness.steps"),
        (["+model.foo=1"], "model has no key 'foo'. Keys: name, layer, checkpoint."),
        (["+model@other=vgg16"], "There is no key 'other'"),
        (["~batch_size"], "batch_size was taken away"),
        (["protocols.gradcam2017.threshold=0.3"], "protocols.gradcam2017.name=mine"),
        (["layers=[layr4]"], "Nearest: layer4"),
        (["reprot"], "'reprot' is neither a verb nor key=value. Nearest: report"),
        (["--cgf", "job"], "There is no option --cgf. Nearest: --cfg."),
        (["layers=[a"], "'layers=[a' cannot be read as key=value"),
        (["dataset=imagenet", "dataset.root=nowhere"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_gives_one_message_and_exit_code_2(tmp_path, arguments, message):
    done = cli(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("gradcam-bench:") == 1
    assert not re.search(r"hydra|HYDRA|__main__|Error executing|EQUAL", done.stderr)
    assert not list(tmp_path.iterdir())  # nothing that would block the corrected run


LAUNCHER = """
import os, sys
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus, run_job
from hydra.plugins.launcher import Launcher
from omegaconf import open_dict

class Elsewhere(Launcher):
    def setup(self, *, hydra_context, task_function, config):
        self.context, self.function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides, initial_job_idx):
        returned = []
        for index, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = index
            sys.stdout.flush()
            child = os.fork()
            if not child:
                run_job(hydra_context=self.context, task_function=self.function, config=config,
                        job_dir_key="hydra.sweep.dir", job_subdir_key="hydra.sweep.subdir")
                sys.stdout.flush()
                os._exit(0)
            os.waitpid(child, 0)
            returned.append(JobReturn(status=JobStatus.COMPLETED))
        return returned

ConfigStore.instance().store(
    group="hydra/launcher", name="elsewhere", node={"_target_": "hydra_plugins.elsewhere.Elsewhere"}
)
"""


@pytest.fixture
def elsewhere(tmp_path_factory, monkeypatch):
    """Install a launcher whose jobs run in processes of their own, as on a cluster."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "hydra_plugins").mkdir()
    (folder / "hydra_plugins" / "elsewhere.py").write_text(LAUNCHER)
    paths = [str(folder), os.environ.get("PYTHONPATH", str(ROOT))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return "hydra/launcher=elsewhere"


def test_a_sweep_joins_its_runs(tmp_path):
    done = cli(
        "-m", "model=tiny_vgg,tiny_resnet", "dataset.length=4", "faithfulness.enabled=false",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    joined = pd.read_csv(tmp_path / "results" / "shapes" / "joined.csv")
    assert set(joined["run"]) == {"tiny_vgg", "tiny_resnet"}
    assert (tmp_path / "results" / "shapes" / "report.html").is_file()
    assert not (tmp_path / "results" / ".multirun").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["results"]
    # And the report can be made again from what is stored.
    again = cli("report", *map(str, tmp_path.glob("results/shapes/tiny_*/*")), cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert (tmp_path / again.stdout.strip()).is_file()


def test_a_job_that_fails_in_another_process_leaves_the_joint_report_of_the_others(
    tmp_path, elsewhere
):
    done = cli(
        "-m", "model=tiny_resnet", "layers=[layer3],[layer4],[nowhere]", "dataset.length=4",
        "faithfulness.enabled=false", elsewhere, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "1 job failed" in done.stderr
    assert "no layer 'nowhere'" in done.stderr
    assert not re.search("Traceback|Error executing", done.stderr)
    folder = tmp_path / "results" / "shapes" / "tiny_resnet"
    assert pd.read_csv(folder / "joined.csv")["run"].nunique() == 2
    assert (folder / "report.html").is_file()
    assert not (tmp_path / "results" / ".multirun").exists()


def test_without_a_report_a_run_writes_rows_alone_and_says_how_to_report_them(tmp_path):
    done = cli(*QUICK, "report=false", "output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"scores", "gallery", "run.json"}
    assert "gradcam-bench report out" in done.stdout


def test_report_without_a_folder_shows_its_usage(tmp_path):
    done = cli("report", cwd=tmp_path)
    assert done.returncode == 2
    assert "usage: gradcam-bench report" in done.stderr
    assert "DIR" in done.stderr


def test_a_misspelt_key_in_an_experiment_file_is_refused(tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "typo.yaml").write_text("# @package _global_\ndataset:\n  limti: 3\n")
    (folder / "top.yaml").write_text("# @package _global_\nbatchsize: 3\n")
    (folder / "under.yaml").write_text("# @package faithfulness\nstep: 3\n")
    (folder / "beside.yaml").write_text("# @package batchsize\nvalue: 3\n")
    found = {
        "typo": "dataset has no key 'limti'. Nearest: limit",
        "top": "experiment/top.yaml: There is no key 'batchsize'. Nearest: batch_size",
        "under": "experiment/under.yaml: There is no key 'faithfulness.step'. Nearest: steps",
        "beside": "There is no key 'batchsize'. Nearest: batch_size",
    }
    for name, message in found.items():
        done = cli("--config-dir", "conf", f"experiment={name}", cwd=tmp_path)
        assert done.returncode == 2, name
        assert message in done.stderr


def test_the_overlay_function_survives_any_import_order():
    code = (
        "from gradcam_bench import overlay; import gradcam_bench.report.figures.overlay;"
        "from gradcam_bench import overlay as again, GradCAM;"
        "assert callable(overlay) and again is overlay"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
