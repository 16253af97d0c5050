"""Measure gradcam_bench beside the packages people use, interleaved, on the same inputs.

    python scripts/benchmark_speed.py
    python scripts/benchmark_speed.py sections=maps,layers repeats=5 device=cuda
    python scripts/benchmark_speed.py dataset=imagenet dataset.root=DIR

Sections: maps layers faithfulness boxes run growth parity. Every repeat runs each contender once,
in turn; ratios are taken within a repeat and their median is reported, so that a machine that slows
down slows all. The images are the embedded scenes unless dataset= says otherwise; torchvision's
networks have random weights, which costs as much as trained ones. The packages run the network as
it is loaded (contiguous) unless their line says channels_last. Needs the extra `peers`. Writes
speed.csv and speed.json into results/speed unless output_dir= says otherwise, section by section:
other sections' lines stay.
"""

from __future__ import annotations

import copy
import json
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import speed_peers
import torch
from speed_peers import QUANTUS_STEPS, STEPS, forward
from torch import Tensor, nn

from gradcam_bench import GradCAM, api
from gradcam_bench.cam.methods import METHODS, grad_cam
from gradcam_bench.config import bind
from gradcam_bench.data.geometry import Geometry
from gradcam_bench.errors import UserError
from gradcam_bench.faithfulness.baselines import n_points
from gradcam_bench.faithfulness.curves import (
    Curves,
    Options,
    area_under_curve,
    deletion_and_insertion,
)
from gradcam_bench.faithfulness.scorers import Scorer, TorchScorer, make_scorer
from gradcam_bench.faithfulness.target_scores import Explained, TargetScores
from gradcam_bench.localization.max_box_acc import hit_bits
from gradcam_bench.localization.protocol import Protocol
from gradcam_bench.localization.threshold_sweep import sweep
from gradcam_bench.models.efficientnet_lite import efficientnet_lite
from gradcam_bench.models.model import Model
from gradcam_bench.models.prepare import prepare
from gradcam_bench.models.torchvision_models import torchvision_model
from gradcam_bench.report import tables
from gradcam_bench.run import loop, provenance
from gradcam_bench.run.batches import batches
from gradcam_bench.run.heatmaps import heatmaps
from gradcam_bench.run.setup import bind_dataset

Contenders = dict[str, Callable[[], object]]


@dataclass
class Bench:
    """What every section shares.

    Attributes:
        overrides: dataset=... and further keys of gradcam-bench.
        device: of networks and images.
        repeats: rounds of all contenders.
        lines: results so far.
    """

    overrides: list[str]
    device: torch.device
    repeats: int
    lines: list[dict[str, object]]

    def images(self, n: int, size: int, interpolation: str = "bilinear") -> Tensor:
        """Return the first n images of the data set as uint8 (n, 3, size, size)."""
        config, _ = api.compose([*self.overrides, f"dataset.limit={n}"])
        dataset = bind_dataset(config.dataset)()
        geometry = Geometry(size=size, mode="squash", resize=None, interpolation=interpolation)  # type: ignore[arg-type]
        loader = batches(dataset, geometry, range(n), batch_size=n, num_workers=0, pin=False)
        return next(iter(loader)).images

    def model(self, name: str) -> tuple[Model, nn.Module]:
        """Return a model, its network on the device, and a copy of that in channels_last."""
        lite = name.startswith("efficientnet_lite")
        model = efficientnet_lite(name=name) if lite else torchvision_model(name=name, weights=None)
        network: Any = copy.deepcopy(model.network.to(self.device))
        return model, network.to(memory_format=torch.channels_last)

    def inputs(self, model: Model, n: int) -> Tensor:
        """Return n normalised images for a model, on the device, in channels_last."""
        pixels = model.preprocessing
        images = self.images(n, pixels.size, pixels.interpolation).to(self.device)
        return pixels.normalize(images).contiguous(memory_format=torch.channels_last)

    def time(self, call: Callable[[], object]) -> float:
        """Return the seconds of one call, the device's queue included."""
        start = time.perf_counter()
        call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def compare(
        self,
        section: str,
        case: str,
        contenders: Contenders,
        *,
        work: dict[str, float] | None = None,
        difference: float = float("nan"),
        warm: bool = True,
    ) -> None:
        """Time contenders in turn; the first is ours.

        Args:
            section: name of the section.
            case: model and what is done.
            contenders: by name.
            work: how much of ours' work each does, where it is not the same (1).
            difference: largest difference between our answer and the slow path's.
            warm: run each once before.
        """
        for call in contenders.values() if warm else ():
            call()
        rounds = [
            {name: self.time(call) for name, call in contenders.items()}
            for _ in range(self.repeats)
        ]
        ours = next(iter(contenders))
        for name in contenders:
            share = (work or {}).get(name, 1.0)
            seconds = [found[name] for found in rounds]
            ratios = [found[name] / share / found[ours] for found in rounds]
            line = {
                "section": section,
                "case": case,
                "contender": name,
                "seconds": statistics.median(seconds),
                "fastest": min(seconds),
                "slowest": max(seconds),
                "times_ours": statistics.median(ratios),
                "difference": difference if name == ours else float("nan"),
                "repeats": self.repeats,
            }
            self.lines.append(line)
            print(
                f"{section:12} {case:44} {name:26} {line['seconds']:9.4f} s "
                f"{line['times_ours']:8.3f}",
                flush=True,
            )


def maps(bench: Bench) -> None:
    """One Grad-CAM at the default layer of a batch of 16."""
    for name in ("resnet50", "vgg16", "inception_v3", "efficientnet_lite0"):
        _maps(bench, name)


def _maps(bench: Bench, name: str) -> None:
    model, network = bench.model(name)
    x = bench.inputs(model, 16)
    layer = model.default_layer
    classes = forward(network, x).argmax(1)
    fast = GradCAM(prepare(network, x[:2], layers=[layer]).network, [layer])
    plain = GradCAM(network, [layer])
    last = speed_peers.maps(network, layer, x, classes)
    contenders: Contenders = {
        "ours": lambda: fast.generate(x, classes),
        "forward": lambda: forward(network, x),
        "GradCAM, batch norm unfolded": lambda: plain.generate(x, classes),
        **speed_peers.maps(model.network, layer, x.contiguous(), classes),
        "captum, channels_last": last["captum"],
        "torchcam, channels_last": last["torchcam"],
    }
    difference = largest(fast.generate(x, classes), plain.generate(x, classes))
    bench.compare("maps", f"{name}, {layer}, 16 images", contenders, difference=difference)


def layers(bench: Bench) -> None:
    """All layers in one pass against the packages layer by layer."""
    for name in ("resnet50", "vgg16"):
        _layers(bench, name)


def _layers(bench: Bench, name: str) -> None:
    model, network = bench.model(name)
    x = bench.inputs(model, 4)
    names = [layer for layer in model.candidate_layers() if layer != "relu"]
    classes = forward(network, x).argmax(1)
    fast = GradCAM(prepare(network, x[:2], layers=names).network, names)
    as_loaded = x.contiguous()
    each = [speed_peers.maps(model.network, layer, as_loaded, classes) for layer in names]
    contenders: Contenders = {
        "ours": lambda: fast.generate(x, classes),
        "forward": lambda: forward(network, x),
        "captum": lambda: [one["captum"]() for one in each],
        "torchcam": lambda: [one["torchcam"]() for one in each],
    }
    slow = GradCAM(network, names).generate(x, classes)
    difference = largest(fast.generate(x, classes), slow)
    case = f"{name}, {len(names)} layers, 4 images"
    bench.compare("layers", case, contenders, difference=difference)


def largest(found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor]) -> float:
    """Return the largest difference between two lists of tensors."""
    return max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True))


def faithfulness(bench: Bench) -> None:
    """Deletion and insertion, 29 points each, of 16 images.

    Their number matters: RISE's loop scores all of them at once, and on two cores
    EfficientNet-Lite0 took it 17, 28 and 37 ms an image in batches of 4, 8 and 16.
    """
    for name in ("efficientnet_lite0", "resnet50"):
        _faithfulness(bench, name)


def _faithfulness(bench: Bench, name: str) -> None:
    model, network = bench.model(name)
    n = 16
    x = bench.inputs(model, n).contiguous()
    targets = forward(network, x).argmax(1)
    scorer = make_scorer("auto", network, x[:2], n_images=10**6)
    low = GradCAM(network, [model.default_layer]).generate(x, targets)[0]
    ids = [str(i) for i in range(n)]
    _, points = n_points((x.shape[-2], x.shape[-1]), STEPS)
    scored = n * 2 * (points - 2) + 2 * n + 1  # inner points; clean and blurred images; zeros
    bare = x[:1].expand(32, -1, -1, -1).contiguous(memory_format=scorer.memory_format)

    def ours() -> Curves:
        return deletion_and_insertion(
            Explained(x, low[:, None], targets, ids),
            TargetScores(scorer),
            model.preprocessing,
            Options(steps=STEPS),
        )

    contenders: Contenders = {
        "ours": ours,
        "bare scorer": lambda: throughput(scorer, bare, scored),
        "rise": lambda: speed_peers.rise(model.network, x, low, targets),
        "torchcam": speed_peers.torchcam_metric(model.network, model.default_layer, x, targets),
        "quantus": speed_peers.pixel_flipping(model.network, x, low, targets),
    }
    found, slow = ours(), speed_peers.rise(model.network, x, low, targets)
    difference = largest(
        [area_under_curve(curve)[:, 0] for curve in (found.deletion, found.insertion)],
        [area_under_curve(curve) for curve in slow],
    )
    case = f"{name}, 29 + 29 points, {n} images, {scorer.name}"
    work = {"quantus": QUANTUS_STEPS / (2 * points)}  # deletion alone, in fewer steps
    # Ours and RISE's loop are warm by now; another round would take minutes.
    bench.compare("faithfulness", case, contenders, work=work, difference=difference, warm=False)


def throughput(scorer: Scorer, images: Tensor, count: int) -> None:
    for begin in range(0, count, len(images)):
        scorer(images[: min(len(images), count - begin)])


def boxes(bench: Bench) -> None:
    """MaxBoxAcc v1 and v2 of Grad-CAM maps against cv2 at every threshold, and a forward."""
    model, network = bench.model("efficientnet_lite0")
    x = bench.inputs(model, 16)
    cam = GradCAM(network, model.default_layer)
    cam.forward(x)
    cam.backward()
    raw = grad_cam(cam.activations[0], cam.gradients[0])
    config, _ = api.compose(["protocol=[wsol_v1,wsol_v2]"])
    protocols: list[Protocol] = [bind(node, "protocols")() for node in config.protocols.values()]
    truth = np.array([[40.0, 50.0, 180.0, 200.0]])

    def ours() -> list[np.ndarray]:
        found = heatmaps(raw, (x.shape[-2], x.shape[-1]), protocols[0]).cpu().numpy()
        return [
            hit_bits(swept.best_iou, protocol)
            for heatmap in found
            for protocol, swept in zip(protocols, sweep(heatmap, truth, protocols), strict=True)
        ]

    def with_cv2() -> object:
        found = heatmaps(raw, (x.shape[-2], x.shape[-1]), protocols[0]).cpu().numpy()
        return [speed_peers.every_threshold(heatmap) for heatmap in found]

    contenders: Contenders = {
        "ours": ours,
        "cv2, 1000 thresholds": with_cv2,
        "forward": lambda: forward(network, x),
    }
    bench.compare("boxes", "efficientnet_lite0, wsol_v1 + wsol_v2, 16 maps", contenders)


def run(bench: Bench) -> None:
    """A whole run of 64 images with the default methods against its forwards at bare throughput."""
    model, network = bench.model("efficientnet_lite0")
    x = bench.inputs(model, 16)
    scorer = make_scorer("auto", network, x[:2], n_images=10**6)
    bare = x[:1].expand(32, -1, -1, -1).contiguous(memory_format=scorer.memory_format)
    cells, images = 3, 64
    _, points = n_points((x.shape[-2], x.shape[-1]), STEPS)
    # A map's inner points and its masked image; an image's clean (twice) and blurred ones.
    scored = images * (cells * (2 * (points - 2) + 1) + 3) + 1

    def ours() -> object:
        with tempfile.TemporaryDirectory() as folder:
            overrides = ["model=efficientnet_lite0", f"device={bench.device}", *bench.overrides]
            config, _ = api.compose([*overrides, f"dataset.limit={images}"])
            return loop.run(config, Path(folder), command="benchmark_speed")

    def forwards() -> None:
        for _ in range(images // len(x)):
            forward(network, x)
        throughput(scorer, bare, scored)

    contenders: Contenders = {"ours": ours, "its forwards": forwards}
    case = f"efficientnet_lite0, {images} images, 3 methods, {scorer.name}"
    bench.compare("run", case, contenders, warm=False)


def growth(bench: Bench) -> None:
    """Cost against the number of layers and methods (flat), images and steps (linear)."""
    model, network = bench.model("resnet50")
    x = bench.inputs(model, 4)
    names = [layer for layer in model.candidate_layers() if layer != "relu"]
    cams = {k: GradCAM(network, names[:: len(names) // k][:k]) for k in (16, 8, 4, 2, 1)}
    contenders: Contenders = {
        f"{k} layers": lambda cam=cam: cam.generate(x, 0)  # type: ignore[misc]
        for k, cam in cams.items()
    }
    bench.compare("growth", "resnet50, layers from the first block on, 4 images", contenders)
    cam = GradCAM(network, "layer4")

    def family(count: int) -> object:
        cam.forward(x)
        cam.backward(0)
        chosen = list(METHODS.values())[:count]
        return [method(cam.activations[0], cam.gradients[0]) for method in chosen]

    counts = (len(METHODS), 3, 1)
    contenders = {f"{k} methods": lambda k=k: family(k) for k in counts}  # type: ignore[misc]
    bench.compare("growth", "resnet50, methods at layer4, 4 images", contenders)
    contenders = {
        f"{k} images": lambda k=k: cam.generate(x[:1].expand(k, -1, -1, -1), 0)  # type: ignore[misc]
        for k in (16, 8, 4)
    }
    bench.compare("growth", "resnet50, images, layer4", contenders)
    lite, lite_network = bench.model("efficientnet_lite0")
    y = bench.inputs(lite, 2).contiguous()
    scorer = TorchScorer(prepare(lite_network, y).network)
    low = torch.rand(2, 1, *y.shape[-2:], generator=torch.Generator().manual_seed(0)).to(y)
    target = torch.zeros(2, dtype=torch.long, device=bench.device)

    def curves(steps: int) -> object:
        explained = Explained(y, low, target, ["a", "b"])
        options = Options(steps=steps)
        return deletion_and_insertion(explained, TargetScores(scorer), lite.preprocessing, options)

    contenders = {f"{k} steps": lambda k=k: curves(k) for k in (28, 14, 7)}  # type: ignore[misc]
    bench.compare("growth", "efficientnet_lite0, steps, 2 images, torch", contenders)


def parity(bench: Bench) -> None:
    """Maps and predictions in lower precision against float32."""
    model, network = bench.model("efficientnet_lite0")
    x = bench.inputs(model, 16)
    prepared = prepare(network, x[:2], layers=[model.default_layer])
    exact = GradCAM(prepared.network, [model.default_layer])
    classes = forward(network, x).argmax(1)
    expected = exact.generate(x, classes)
    # float16 on a CPU is slow and nobody's choice.
    for dtype in (torch.bfloat16, torch.float16)[: 2 if bench.device.type == "cuda" else 1]:
        cam = GradCAM(prepared.network, [model.default_layer], autocast=dtype)
        found = cam.generate(x, classes)
        agree = float((cam.forward(x).argmax(1) == classes).float().mean())
        contenders: Contenders = {
            "ours": lambda cam=cam: cam.generate(x, classes),  # type: ignore[misc]
            "float32": lambda: exact.generate(x, classes),
        }
        name = str(dtype).removeprefix("torch.")
        case = f"efficientnet_lite0, {name}, {100 * agree:.0f} % of predictions equal"
        difference = largest(found, expected)
        bench.compare("parity", case, contenders, difference=difference)


SECTIONS = {
    "maps": maps,
    "layers": layers,
    "faithfulness": faithfulness,
    "boxes": boxes,
    "run": run,
    "growth": growth,
    "parity": parity,
}


def main(arguments: Sequence[str]) -> None:
    chosen, rest = api.split_option(arguments, "sections", ",".join(SECTIONS))
    repeats, rest = api.split_option(rest, "repeats", "3")
    device, rest = api.split_option(rest, "device", "cpu")
    output, overrides = api.split_option(rest, "output_dir", "results/speed")
    names = chosen.split(",")
    unknown = [name for name in names if name not in SECTIONS]
    if unknown or not repeats.isdigit() or int(repeats) < 1:
        raise UserError(
            f"expected sections={','.join(SECTIONS)} (some of them) and repeats= from 1, "
            f"got sections={chosen} repeats={repeats}"
        )
    try:
        import captum  # noqa: F401
        import cv2  # noqa: F401
        import pytorch_grad_cam  # noqa: F401
        import quantus  # noqa: F401
        import torchcam  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error}; the peers come with pip install -e '.[peers]'") from error
    warnings.simplefilter("ignore")  # the peers'
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        bench = Bench(list(overrides), torch.device(device), int(repeats), [])
        SECTIONS[name](bench)
        write(folder, name, bench)


def write(folder: Path, section: str, bench: Bench) -> None:
    """Replace the lines of a section in speed.csv, and say in speed.json how it was measured."""
    table, record = folder / "speed.csv", folder / "speed.json"
    lines = pd.DataFrame(bench.lines)
    if table.exists():
        old = pd.read_csv(table)
        lines = pd.concat([old[old["section"] != section], lines], ignore_index=True)
    place = {name: i for i, name in enumerate(SECTIONS)}
    lines = lines.sort_values("section", key=lambda s: s.map(place), kind="stable")
    tables.to_csv(lines, table)
    known = json.loads(record.read_text()) if record.exists() else {}
    cuda = bench.device.type == "cuda"
    known[section] = {
        "command": " ".join(["python scripts/benchmark_speed.py", *sys.argv[1:]]),
        "device": torch.cuda.get_device_name() if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
        "repeats": bench.repeats,
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }
    record.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    api.run_script(main)
