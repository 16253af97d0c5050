"""float32 is float32 within a run, and what the user set is there again behind it."""

import subprocess
import sys

import pytest
import torch

from gradcam_bench.run.precision import full_float32, tf32_allowed

STATES = {
    "defaults": "",
    "older, all on": "torch.set_float32_matmul_precision('medium')",
    "older, matmul": "torch.backends.cuda.matmul.allow_tf32 = True",
    "older, off": "torch.backends.cudnn.allow_tf32 = False",
    "newer, everywhere": "torch.backends.fp32_precision = 'tf32'",
    "newer, convolutions off": "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
    "newer, matmul": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
}
SCRIPT = """
import warnings
warnings.simplefilter("error")
import torch
from gradcam_bench.run.precision import full_float32, tf32_allowed
NAMES = "fp32_precision cudnn.fp32_precision cudnn.conv.fp32_precision cudnn.rnn.fp32_precision \
cuda.matmul.fp32_precision mkldnn.matmul.fp32_precision mkldnn.conv.fp32_precision \
cuda.matmul.allow_tf32 cudnn.allow_tf32".split()

def reading(name):
    try:
        value = torch.backends
        for part in name.split("."):
            value = getattr(value, part)
        return value
    except RuntimeError:
        return "refused"

def state():
    try:
        matmul = torch.get_float32_matmul_precision()
    except RuntimeError:
        matmul = "refused"
    return [matmul, *(reading(name) for name in NAMES)]

if not hasattr(torch.backends, "fp32_precision") and "fp32" in {setting!r}:
    raise SystemExit
{setting}
before = state()
try:
    with full_float32():
        assert not tf32_allowed(), state()
        assert "tf32" not in state()[3:], state()
        if "newer" not in {name!r}:
            assert not reading("cuda.matmul.allow_tf32"), state()
            assert not reading("cudnn.allow_tf32"), state()
        raise KeyError
except KeyError:
    pass
assert state() == before, (before, state())
"""


@pytest.mark.parametrize("name", STATES)
def test_every_setting_is_off_inside_and_back_behind_an_error(name):
    # In a process of its own: some settings cannot be taken back.
    code = SCRIPT.format(setting=STATES[name], name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_precisions_leave_the_setting_alone():
    before = tf32_allowed()
    with full_float32(False):
        assert tf32_allowed() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_convolutions_on_cuda_are_as_exact_as_on_the_cpu():
    x, w = torch.randn(1, 64, 32, 32), torch.randn(64, 64, 3, 3)
    expected = torch.nn.functional.conv2d(x, w)
    with full_float32():
        found = torch.nn.functional.conv2d(x.cuda(), w.cuda()).cpu()
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
