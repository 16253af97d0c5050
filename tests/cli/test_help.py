"""Help and lists: complete, generated, and there at once."""

import subprocess
import sys

import pytest
from repository import ROOT

from gradcam_bench.analysis.metrics import METRICS
from gradcam_bench.cli import help, keys, listing
from gradcam_bench.config import schema_keys
from gradcam_bench.errors import UserError
from gradcam_bench.names import METHODS
from gradcam_bench.overrides import check_words

GROUPS = ("model", "dataset", "protocol", "experiment")


def listed(capsys, *words):
    listing.main(words)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line.split(None, 1)) == 2 for line in lines), "a name without a text"
    return [line.split()[0] for line in lines]


def test_every_key_of_the_schema_has_a_line_of_help_and_no_other_has():
    leaves = {
        name for name in schema_keys() if not any(k.startswith(f"{name}.") for k in schema_keys())
    }
    wanted = (leaves - {"model", "dataset", "protocols"}) | set(GROUPS)
    assert keys.described() == wanted
    assert {key.name for key in keys.all_keys()} == wanted
    assert all(key.text for key in keys.all_keys())


def test_help_names_every_key_with_its_default_and_every_file_of_conf():
    text = help.whole_help()
    for key in keys.all_keys():
        assert f"  {key.name}={key.default} " in text
    words = set(text.split())
    for path in (ROOT / "conf").glob("*/*.yaml"):
        assert path.stem in words
    assert max(map(len, text.splitlines())) <= 100


def test_every_command_of_help_is_one_that_is_accepted():
    commands = help.COMMANDS.splitlines()
    assert len(commands) == 10
    for line in commands:
        command = line.strip().split("   ")[0].replace("'", "")
        words = command.split()[1:]
        if words and words[0] in help.VERBS:
            assert not words[0].startswith("-")
        else:
            check_words(words)


@pytest.mark.parametrize("verb", help.VERBS)
def test_every_verb_has_its_own_help_and_stands_in_the_whole_one(verb):
    assert help.VERBS[verb].startswith(f"usage: gradcam-bench {verb} ")
    assert f"  gradcam-bench {verb} " in help.whole_help()


def test_lists_are_complete(capsys):
    for what, group in (("models", "model"), ("datasets", "dataset"), ("protocols", "protocol")):
        assert listed(capsys, what) == [path.stem for path in keys.files(group)]
    assert listed(capsys, "methods") == list(METHODS)
    assert listed(capsys, "metrics") == list(METRICS)


def test_the_layers_of_a_network_are_listed_with_the_shapes_of_their_maps(capsys):
    listing.main(["layers", "model=tiny_resnet"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[-1] == ["layer4", "64", "x", "12", "x", "12", "default"]
    assert [line[0] for line in lines] == ["relu", "layer1", "layer2", "layer3", "layer4"]


def test_an_unknown_list_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"got 'modls'\. Nearest: models"):
        listing.main(["modls"])
    with pytest.raises(UserError, match="takes no further words, got 'model=vgg16'"):
        listing.main(["models", "model=vgg16"])


@pytest.mark.parametrize(
    "words",
    [["--help"], ["model=vgg16", "-h"], ["report", "--help"], ["list", "models"], ["--version"]],
)
def test_help_and_lists_load_neither_torch_nor_hydra_nor_pandas(words):
    code = (
        f"import sys; sys.argv[1:] = {words!r}; from gradcam_bench.__main__ import main; main(); "
        "found = {'torch', 'hydra', 'omegaconf', 'pandas', 'matplotlib', 'numpy'} & {*sys.modules};"
        "assert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(("gradcam-bench", "usage: gradcam-bench report", "alexnet "))
