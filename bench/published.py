"""Networks that others trained, loaded into shoal's nets: the accuracy that was published, on the whole test set.

    python bench/published.py                 CIFAR-10, ResNet-20, 32 and 56, 1 thread; results/published.json

Weights and images are read from $SHOAL_DATA (default ../shared/data): cifar10_resnet*.safetensors and cifar10_*.npz.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch
from _timing import show, write

import shoal
from shoal.building import load_published

FOLDER = Path(os.environ.get("SHOAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
STATED = {"resnet20": 91.73, "resnet32": 92.62, "resnet56": 93.39}  # by the plain module that the weights came with


def right(net: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, batch: int) -> int:
    """How many of the images are classified right; they are prepared as the nets were trained."""
    found = 0
    with torch.inference_mode():
        for images, classes in zip(x.split(batch), y.split(batch), strict=True):
            found += int((net((images / 255 - MEAN) / STD).argmax(dim=1) == classes).sum())
    return found


def main() -> None:
    """Evaluate, print, write; say which nets miss what was stated."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--nets", nargs="+", default=list(STATED), choices=list(STATED))
    reader.add_argument("--threads", type=int, default=1)
    reader.add_argument("--batch", type=int, default=250)
    given = reader.parse_args()
    torch.set_num_threads(given.threads)
    test = shoal.open_data("cifar10", as_given=True).test
    rows = []
    for name in given.nets:
        net = load_published(name, FOLDER / f"cifar10_{name}.safetensors")
        began = time.perf_counter()
        accuracy = 100 * right(net, test.x, test.y, given.batch) / len(test.y)
        rows.append(
            {
                "net": name,
                "params": sum(parameter.numel() for parameter in net.parameters()),
                "accuracy": f"{accuracy:.2f}",
                "stated": f"{STATED[name]:.2f}",
                "verdict": "ok" if round(accuracy, 2) == STATED[name] else "MISSED",
                "seconds": time.perf_counter() - began,
            }
        )
        print(f"{name}: {accuracy:.2f}%", flush=True)
    show(f"published weights, CIFAR-10, {len(test.y):,} test images", rows)
    print("written:", write("published", rows, images=len(test.y), threads=given.threads))


if __name__ == "__main__":
    main()
