"""Train the small networks of `gradcam_bench.zoo` on Shapes, each from a fixed seed.

    python scripts/train_zoo.py tiny_resnet        (without a name: all three)
    python scripts/train_zoo.py tiny_resnet --resume --first 16000 --epochs 5 --crops 0
                                                   (go on with the stored weights, on new scenes)

Writes the weights and their checksums into the package, and results/zoo/<name>.csv (one row an
epoch) and results/zoo/<name>.json (accuracy on the test split, which training never sees).
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from tqdm import tqdm

from gradcam_bench.data.drawing import CLASS_NAMES
from gradcam_bench.data.shapes import Shapes, mask_box
from gradcam_bench.models import zoo
from gradcam_bench.models.zoo.networks import TinyVGG

RESULTS = Path(__file__).parents[1] / "results" / "zoo"
VALIDATION_SCENES, TEST_SCENES = 1000, 4000
BATCH = 64
RATES = {"tiny_vgg": 2e-3, "tiny_resnet": 3e-3, "tiny_inception": 4e-3}
"""The largest learning rate of the one-cycle schedule."""


@dataclass(frozen=True)
class Scenes:
    """Images (N, 3, H, W) uint8, labels (N,), centres of the boxes (N, 2), x before y."""

    images: torch.Tensor
    labels: torch.Tensor
    centres: torch.Tensor


def one(index: int, *, data: Shapes) -> tuple[np.ndarray, int, np.ndarray]:
    scene = data.scene(index)
    x0, y0, x1, y1 = mask_box(scene.masks[0])[0]
    return scene.image, scene.labels[0], np.array([x0 + x1, y0 + y1]) / 2


def draw(split: str, length: int, *, first: int = 0, workers: int, cache: Path | None) -> Scenes:
    """Draw the scenes first, first + 1, ... of a split, or read them from the cache."""
    data = Shapes(split=split, length=first + length)
    kept = cache / f"{split}-{data.fingerprint()}-{first}.safetensors" if cache else None
    if kept and kept.exists():
        stored = safetensors.torch.load_file(kept)
    else:
        with multiprocessing.Pool(workers) as pool:
            drawn = pool.imap(partial(one, data=data), range(first, first + length), chunksize=64)
            drawn = tqdm(drawn, total=length, desc=split, mininterval=5)
            columns = [torch.from_numpy(np.stack(column)) for column in zip(*drawn, strict=True)]
        stored = dict(zip(("images", "labels", "centres"), columns, strict=True))
        if kept:
            safetensors.torch.save_file(stored, kept)
    # Channels last in memory: 1.3 to 4 times as fast on a CPU.
    return Scenes(stored["images"].permute(0, 3, 1, 2), stored["labels"], stored["centres"])


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean = torch.tensor(zoo.PREPROCESSING["mean"])[:, None, None]
    std = torch.tensor(zoo.PREPROCESSING["std"])[:, None, None]
    pixels = images.contiguous(memory_format=torch.channels_last).float() / 255
    return (pixels - mean) / std


def augmented(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return a batch flipped, turned by a quarter and with its colours exchanged, at random."""
    flip_x, flip_y, swap = torch.randint(2, (3,), generator=generator).tolist()
    images = images.flip([3]) if flip_x else images
    images = images.flip([2]) if flip_y else images
    images = images.transpose(2, 3) if swap else images
    return images[:, torch.randperm(3, generator=generator)]


def cropped(scenes: Scenes, batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return windows of half the side, (N, 3, H / 2, W / 2), that hold the object's centre."""
    half = scenes.images.shape[-1] // 2
    jitter = (torch.rand(len(batch), 2, generator=generator) - 0.5) * half / 2
    corners = (scenes.centres[batch] + jitter - half / 2).round().long().clamp(0, half).tolist()
    windows = [
        scenes.images[i, :, y : y + half, x : x + half]
        for i, (x, y) in zip(batch.tolist(), corners, strict=True)
    ]
    return torch.stack(windows)


def for_crops(network: torch.nn.Module) -> torch.nn.Module:
    """Return a network for windows that shares the given one's features.

    Global pooling takes any size; the head of tiny_vgg does not, and is replaced meanwhile.
    """
    if not isinstance(network, TinyVGG):
        return network
    head = nn.LazyLinear(len(CLASS_NAMES))
    crops_network = nn.Sequential(network.features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    crops_network(torch.zeros(2, 3, 48, 48))  # tells the head its number of inputs
    return crops_network


def with_batch_norm(network: TinyVGG) -> None:
    """Put a batch norm after every convolution, in place; without, training takes far longer."""
    for i, layer in enumerate(network.features):
        if isinstance(layer, nn.Conv2d):
            network.features[i] = nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels))


def without_batch_norm(network: TinyVGG) -> None:
    """Merge every batch norm into its convolution, in place; the outputs stay the same."""
    network.eval()
    for i, layer in enumerate(network.features):
        if isinstance(layer, nn.Sequential):
            convolution, norm = layer
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            network.features[i] = fuse_conv_bn_eval(convolution, norm)


@torch.inference_mode()
def accuracy(network: torch.nn.Module, scenes: Scenes) -> float:
    """Return the share of scenes whose largest logit is the label's, in [0, 1]."""
    network.eval()
    right = 0
    for images, labels in zip(scenes.images.split(BATCH), scenes.labels.split(BATCH), strict=True):
        right += int((network(normalised(images)).argmax(dim=1) == labels).sum())
    return right / len(scenes.labels)


def fit(
    network: torch.nn.Module,
    data: dict[str, Scenes],
    *,
    rate: float,
    epochs: int,
    crops: int,
    generator: torch.Generator,
) -> list[dict[str, object]]:
    """Train in place, `crops` epochs on windows around the object, then on whole scenes.

    The windows cost a quarter and show the object larger: without them 16000 scenes are too few.
    """
    began = time.perf_counter()
    scenes = data["train"]
    steps = len(scenes.labels) // BATCH
    crops_network = for_crops(network)
    parameters = dict.fromkeys([*network.parameters(), *crops_network.parameters()])
    optimizer = torch.optim.AdamW(list(parameters), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=rate, total_steps=epochs * steps, pct_start=0.15
    )
    rows: list[dict[str, object]] = []
    for epoch in range(1, epochs + 1):
        network.train()
        whole = epoch > crops
        trained = network if whole else crops_network
        total_loss = 0.0
        order = torch.randperm(len(scenes.labels), generator=generator)[: steps * BATCH]
        for batch in order.view(steps, BATCH):
            images = scenes.images[batch] if whole else cropped(scenes, batch, generator)
            logits = trained(normalised(augmented(images, generator)))
            loss = functional.cross_entropy(logits, scenes.labels[batch], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total_loss += float(loss.detach())
        rows.append(
            {
                "epoch": epoch,
                "images": "scenes" if whole else "crops",
                "train_loss": round(total_loss / steps, 5),
                "validation_accuracy": accuracy(network, data["validation"]),
                "seconds": round(time.perf_counter() - began, 1),
            }
        )
        print(rows[-1], flush=True)
    return rows


def train(name: str, data: dict[str, Scenes], args: argparse.Namespace) -> None:
    """Train one network; write its weights, its log and its report."""
    began, cpu_began = time.perf_counter(), time.process_time()
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    network = zoo.load(name) if args.resume else zoo.build(name)
    network = network.to(memory_format=torch.channels_last)
    if isinstance(network, TinyVGG) and not args.resume:
        with_batch_norm(network)
    rows = fit(
        network,
        data,
        rate=args.rate * RATES[name],
        epochs=args.epochs,
        crops=args.crops,
        generator=generator,
    )
    if isinstance(network, TinyVGG):
        without_batch_norm(network)
    seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu_began
    store(name, network)
    stored = zoo.load(name)
    content = (zoo.FOLDER / f"{name}.safetensors").read_bytes()
    earlier = json.loads((RESULTS / f"{name}.json").read_text()) if args.resume else {}
    report = {
        "name": name,
        "commands": [*earlier.get("commands", []), _command(name, args)],
        "test_accuracy": accuracy(stored, data["test"]),
        "test_scenes": TEST_SCENES,
        "test_fingerprint": Shapes(split="test", length=TEST_SCENES).fingerprint(),
        "parameters": sum(p.numel() for p in stored.parameters()),
        "bytes": len(content),
        "sha256": zoo.checksum(content),
        "seconds": round(seconds) + earlier.get("seconds", 0),
        "cpu_seconds": round(cpu_seconds) + earlier.get("cpu_seconds", 0),
        "torch": torch.__version__,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    with (RESULTS / f"{name}.csv").open("a" if args.resume else "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        if not args.resume:
            writer.writeheader()
        writer.writerows(rows)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report), flush=True)


def _command(name: str, args: argparse.Namespace) -> str:
    """Return the command with every choice that decides the weights."""
    choices = ("scenes", "first", "epochs", "crops", "rate", "seed", "threads")
    options = " ".join(f"--{choice} {getattr(args, choice)}" for choice in choices)
    return f"python scripts/train_zoo.py {name} {options}" + " --resume" * args.resume


def store(name: str, network: torch.nn.Module) -> None:
    """Write a network's weights into the package, and the checksums of all."""
    state = {k: v.contiguous() for k, v in network.state_dict().items()}
    safetensors.torch.save_file(state, zoo.FOLDER / f"{name}.safetensors")
    files = sorted(zoo.FOLDER.glob("*.safetensors"))
    lines = [f"{zoo.checksum(file.read_bytes())}  {file.name}\n" for file in files]
    (zoo.FOLDER / zoo.CHECKSUMS).write_text("".join(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(zoo.NAMES)}; default: all")
    parser.add_argument("--scenes", type=int, default=16000, help="training scenes")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--crops", type=int, default=8, help="of these, on windows")
    parser.add_argument("--resume", action="store_true", help="go on with the stored weights")
    parser.add_argument("--first", type=int, default=0, help="index of the first training scene")
    parser.add_argument("--rate", type=float, default=1.0, help="share of the learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads and drawing workers")
    parser.add_argument("--cache", type=Path, help="folder that keeps drawn scenes between runs")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lengths = {"train": args.scenes, "validation": VALIDATION_SCENES, "test": TEST_SCENES}
    data = {
        split: draw(
            split,
            n,
            first=args.first if split == "train" else 0,
            workers=args.threads,
            cache=args.cache,
        )
        for split, n in lengths.items()
    }
    for name in args.names or zoo.NAMES:
        train(name, data, args)


if __name__ == "__main__":
    main()
