"""The zoo: every classifier of torchvision and the smallest network of each of timm's files.

Each is explained at random weights, at every hook point, in a process of its own. A row says
whether its maps are finite and not empty, and its logits those of the network.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LIMIT = 300  # seconds for a network
CLASSES = 6
SMALL = 1e-3


def names() -> list[str]:
    """Returns the networks, as 'torchvision:name' and 'timm:name'."""
    from camdrift.pipeline.vision import torchvision

    classifiers = [
        name
        for name in torchvision.models.list_models(module=torchvision.models)
        if not name.startswith("quantized_")
    ]
    return [f"torchvision:{name}" for name in classifiers] + [f"timm:{n}" for n in _smallest()]


def _smallest() -> list[str]:
    """Returns the network of the fewest weights of each of timm's files."""
    import timm
    import torch
    from timm.models import list_modules

    smallest = []
    for module in sorted(list_modules()):
        sizes = {}
        for name in timm.list_models(module=module):
            try:
                with torch.device("meta"):
                    network = timm.create_model(name)
            except Exception:
                continue
            sizes[name] = sum(weight.numel() for weight in network.parameters())
        if sizes:
            smallest.append(min(sizes, key=lambda name: sizes[name]))
    return smallest


def build(name: str) -> tuple[Any, int]:
    """Returns a network at random weights, its zero weights drawn, too, and its input's side."""
    import torch

    from camdrift.pipeline.vision import torchvision

    torch.manual_seed(0)
    library, _, own = name.partition(":")
    if library == "timm":
        import timm

        network = timm.create_model(own)
        size = network.default_cfg["input_size"][-1]
    else:
        sided = {"inception_v3": 299}
        plain = own in ("inception_v3", "googlenet")
        network = torchvision.models.get_model(own, **({"init_weights": False} if plain else {}))
        size = sided.get(own, 224)
    with torch.no_grad():
        for key, weight in network.named_parameters():
            small = float(weight.abs().max()) < SMALL and not key.endswith("bias")
            if small and weight.ndim > 1:
                torch.nn.init.normal_(weight, std=0.02)
            elif small:  # a factor, by which a block's result is all but 0
                weight.fill_(0.5)
    return network.eval(), size


def explained(name: str) -> dict:
    """Returns a network's row."""
    import torch

    from camdrift.explain import cam

    network, size = build(name)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        own = network(images)
    row: dict[str, Any] = {"network": name, "px": size}
    try:
        start = time.perf_counter()
        # Of several classes: that of a single one may be negative everywhere, and so empty.
        classes = torch.arange(CLASSES).expand(len(images), CLASSES)
        answer = cam.all_layers(network, images, classes)
        row["seconds"] = round(time.perf_counter() - start, 2)
    except Exception as fault:
        return row | {"refused": f"{type(fault).__name__}: {fault}"[:300]}
    error = float((answer.logits - own).abs().max() / own.abs().max())
    maps = answer.maps["GradCAM"]
    gc.collect()
    return row | {
        "hook_points": len(maps),
        "first": answer.layers[0],
        "sides": "{}x{} to {}x{}".format(*maps[0].shape[2:], *maps[-1].shape[2:]),
        "empty": sum(not bool(layer.any()) for layer in maps),
        "finite": all(bool(layer.isfinite().all()) for layer in maps),
        "logits_error": float(f"{error:.1e}"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("zoo.json"))
    parser.add_argument("--one")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(explained(arguments.one)))
        return
    rows = []
    for name in arguments.names or names():
        command = [sys.executable, __file__, "--one", name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
            row = json.loads(done.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            row = {"network": name, "refused": f"not finished in {LIMIT} s"}
        except (IndexError, json.JSONDecodeError):
            row = {"network": name, "refused": done.stderr[-300:]}
        print(row, flush=True)
        rows.append(row)
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
