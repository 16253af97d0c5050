"""Networks that write into their input score as those that copy it first."""

import numpy as np
import pytest
import torch
from evaluations import evaluation
from perturber import Perturber
from protocols import GRADCAM2017
from toys import Residual

from gradcam_bench.cam.gradcam import GradCAM
from gradcam_bench.faithfulness.curves import Options
from gradcam_bench.faithfulness.scorers import TorchScorer
from gradcam_bench.models.model import Preprocessing
from gradcam_bench.models.prepare import prepare
from gradcam_bench.run.batches import Batch, Item

SIZE = 12
PIXELS = Preprocessing(SIZE, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), "bilinear", SIZE)


def affine(x):
    return x.mul_(0.5).sub_(0.3)


def relu(x):
    return torch.relu_(x)


def rarely(x):
    return x.clamp_(-1.5, 1.5) if x[:, 0].max() > 1.2 else x


def unseen(x):  # no version counter tells
    x.data.mul_(0.5)
    return x


class Writing(Residual):
    def __init__(self, write, copies=False):
        super().__init__()
        self.write, self.copies = write, copies

    def forward(self, x):
        return super().forward(self.write(x.clone() if self.copies else x))


WRITERS = [affine, relu, rarely, unseen]


def pixels(n=4):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (n, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)


def rows_of(network, images, options):
    box = np.array([[1.0, 1, 9, 8]])
    items = [
        Item(i, f"image {i}", image=images[i].permute(1, 2, 0).numpy(), label=i % 4, boxes=box,
             view=(SIZE, SIZE), view_boxes=box)
        for i in range(len(images))
    ]  # fmt: skip
    prepared = prepare(network, torch.zeros(2, 3, SIZE, SIZE), layers=["stem", "last_relu"])
    scorer = TorchScorer(prepared.network, memory_format=prepared.memory_format)
    evaluate = evaluation(
        GradCAM(prepared.network, ["stem", "last_relu"]),
        PIXELS,
        memory_format=prepared.memory_format,
        methods=["grad_cam", "center"],
        protocols=[GRADCAM2017],
        perturber=Perturber(scorer, PIXELS, options, batch_size=7),
        road=True,
    )
    found = []
    for begin in (0, 2):  # the second batch meets what the first left behind
        part = slice(begin, begin + 2)
        found += evaluate(Batch(items[part], images[part]), set()).rows()
    return [row for rows in found for row in rows]


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("baselines", [("zeros", "blur"), ("noise", "black"), ("mean", "zeros")])
def test_every_score_is_that_of_a_network_that_copies(write, baselines):
    deletion, insertion = baselines
    options = Options(steps=6, deletion_baseline=deletion, insertion_baseline=insertion)
    found, expected = (
        rows_of(Writing(write, copies).eval(), pixels(), options) for copies in (False, True)
    )
    assert found == expected


@pytest.mark.parametrize("write", WRITERS)
def test_the_callers_image_stays_what_it_is_from_the_first_call_on(write):
    network, copying = (Writing(write, copies).eval() for copies in (False, True))
    cam, reference = (
        GradCAM(network, ["stem", "last_relu"]),
        GradCAM(copying, ["stem", "last_relu"]),
    )
    images = PIXELS.normalize(pixels())
    for image in (images, images[0], images.contiguous(memory_format=torch.channels_last)):
        for _ in range(2):
            given = image.clone(memory_format=torch.preserve_format)
            found, expected = cam.generate(given), reference.generate(image)
            assert torch.equal(given, image)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    with torch.inference_mode():
        given = images.clone()
        cam.forward(given)
        assert torch.equal(given, images)


def test_writing_is_said_once(caplog):
    cam = GradCAM(Writing(affine).eval(), "last_relu")
    for _ in range(3):
        cam.generate(PIXELS.normalize(pixels()))
    assert caplog.text.count("writes into its input") == 1
    GradCAM(Residual().eval(), "last_relu").generate(PIXELS.normalize(pixels()))
    assert len(caplog.records) == 1


@pytest.mark.parametrize("write", WRITERS)
def test_batch_norm_is_folded_as_in_a_network_that_copies(write):
    example = torch.zeros(2, 3, SIZE, SIZE)
    found, expected = (
        prepare(Writing(write, copies).eval(), example, layers=["last_relu"])
        for copies in (False, True)
    )
    assert found.folded == expected.folded == 2
    assert found.memory_format == expected.memory_format
