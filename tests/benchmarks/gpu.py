"""`make bench-gpu`: the engine on a GPU, against the same on the CPU and against the bare network.

Equality first: maps and logits of a dozen networks, in single and half precision. Then time and
memory beside a bare forward and backward. About eight minutes; `--device cpu --quick` tries the
script where there is no GPU, and writes nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camdrift.explain import cam
from camdrift.pipeline import run
from camdrift.storage import files
from zoo import build

PATH = Path("data/results/benchmarks/gpu.json")
NETWORKS = [
    "torchvision:vgg16", "torchvision:resnet50", "torchvision:inception_v3",
    "torchvision:densenet121", "torchvision:squeezenet1_1", "torchvision:mobilenet_v3_small",
    "torchvision:efficientnet_b0", "torchvision:convnext_tiny", "torchvision:swin_t",
    "torchvision:vit_b_16", "timm:mixer_s32_224", "timm:xcit_nano_12_p16_224",
]  # fmt: skip
RACES = [("torchvision:vgg16", batch) for batch in (1, 8, 32, 128)] + [
    ("torchvision:resnet50", 32),
    ("torchvision:vit_b_16", 32),
]
# Largest differences, as shares of a layer's largest value.
SINGLE, HALF = 1e-4, 0.1


class Rows(nn.Module):
    """A conv network with an LSTM head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.rows, self.head = nn.LSTM(16, 32, batch_first=True), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).mean(3).transpose(1, 2)
        return self.head(self.rows(x)[0][:, -1])


def equality(name: str, network: nn.Module, size: int, device: torch.device) -> dict[str, Any]:
    """Returns the largest differences of maps and logits between the devices, as shares."""
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = cam.all_layers(network.cpu(), images, 1)
    row: dict[str, Any] = {"network": name, "layers": len(expected.layers)}
    for precision, dtype in (("single", torch.float32), ("half", torch.float16)):
        if dtype is torch.float16 and device.type == "cpu":
            continue
        moved = network.to(device, dtype)
        answer = cam.all_layers(moved, images.to(device), 1)
        pairs = zip(answer.maps["GradCAM"], expected.maps["GradCAM"], strict=True)
        row[f"maps_{precision}"] = max(_share(one.cpu(), other) for one, other in pairs)
        row[f"logits_{precision}"] = _share(answer.logits.cpu(), expected.logits)
    network.float()
    row["equal"] = row["maps_single"] <= SINGLE and row.get("maps_half", 0) <= HALF
    return row


def _share(one: Tensor, other: Tensor) -> float:
    top = float(other.abs().max())
    return float(f"{float((one - other).abs().max()) / top if top else 0.0:.1e}")


def race(name: str, network: nn.Module, size: int, batch: int, device: torch.device) -> dict:
    """Returns seconds and peak memory of all maps, and of a forward and backward alone."""
    network = network.to(device).requires_grad_(False)
    images = torch.rand(batch, 3, size, size, device=device)
    ready = cam.prepare(network)
    watched, points = ready.watch(images)

    def bare() -> None:
        logits, (first,) = watched(images, points[:1], leaves=True)
        torch.autograd.grad(logits[:, 1].sum(), first)

    def ours() -> None:
        cam.all_layers(ready, images, 1, micro_batch=batch)

    row: dict[str, Any] = {"network": name, "px": size, "images": batch}
    for key, work in (("maps", ours), ("bare", bare)):
        row[f"{key}_seconds"], row[f"{key}_bytes"] = _measured(work, device)
    row["ratio"] = round(row["maps_seconds"] / row["bare_seconds"], 3)
    return row


def _measured(work: Callable[[], None], device: torch.device) -> tuple[float, int]:
    """Returns the median seconds of a piece of work, and its peak bytes on a GPU."""
    gpu = device.type == "cuda"
    for _ in range(3):
        work()
    if gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = []
    for _ in range(10):
        if gpu:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if gpu:
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 6), torch.cuda.max_memory_allocated() if gpu else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="the first networks alone")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("not run: there is no CUDA GPU here")
        return
    few = 1 if arguments.quick else None
    rows = [equality("an LSTM head", Rows().eval(), 64, device)]
    for name in NETWORKS[-1:] if few else NETWORKS:
        rows.append(equality(name, *build(name), device))
        print(rows[-1], flush=True)
    races = []
    for name, batch in RACES[:few]:
        races.append(race(name, *build(name), batch, device))
        print(races[-1], flush=True)
    if device.type == "cuda":
        machine = run.environment() | {"device": torch.cuda.get_device_name(device)}
        files.write_json(PATH, {"environment": machine, "equality": rows, "races": races})


if __name__ == "__main__":
    main()
