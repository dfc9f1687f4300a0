"""The zoo: every classifier of torchvision and the smallest network of each of timm's files.

Each is explained at random weights, at every hook point, in a process of its own. A row says
whether its maps are finite and not empty, and its logits those of the network. With `--peers`, it
says instead whether the maps of other libraries, each in its documented use, are the same at the
first, the middle and the last hook point that is a module's output.
"""

import argparse
import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from camdrift.ops.zoo import BESIDE_PEERS, EXPLAINED
from camdrift.storage import files

LIMIT = 300  # seconds for a network
CLASSES = 6
METHODS = ("GradCAM", "LayerCAM")
SHARE = 6  # one network of so many is compared with the peers
SMALL = 1e-3
LARGE, USUAL = 512, 224  # px; attention over thousands of tokens takes half an hour on a core


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
        if size > LARGE and not network.default_cfg["fixed_input_size"]:
            size = USUAL
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
        # Grad-CAM's map of a layer may be negative everywhere for all classes.
        answer = cam.all_layers(network, images, classes, methods=METHODS)
        row["seconds"] = round(time.perf_counter() - start, 2)
    except Exception as fault:
        return row | {"refused": f"{type(fault).__name__}: {fault}"[:300]}
    error = float((answer.logits - own).abs().max() / own.abs().max())
    maps = answer.maps["GradCAM"]
    by_layer = list(zip(*answer.maps.values(), strict=True))
    gc.collect()
    return row | {
        "hook_points": len(maps),
        "first": answer.layers[0],
        "sides": "{}x{} to {}x{}".format(*maps[0].shape[2:], *maps[-1].shape[2:]),
        "empty": sum(not any(bool(layer.any()) for layer in layers) for layers in by_layer),
        "finite": all(bool(layer.isfinite().all()) for layers in by_layer for layer in layers),
        "logits_error": float(f"{error:.1e}"),
    }


def _grad_cam(network: Any, module: Any, images: Any, classes: Any) -> Any:
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    raw = []
    with GradCAM(network, [module]) as method:
        keep = method.get_cam_image
        method.get_cam_image = lambda *args: raw.append(keep(*args)) or raw[-1]
        method(images.clone(), [ClassifierOutputTarget(int(target)) for target in classes])
    return raw[0]


def _torchcam(network: Any, module: Any, images: Any, classes: Any) -> Any:
    from torchcam.methods import GradCAM

    with GradCAM(network, target_layer=module) as extractor:
        scores = network(images.clone().requires_grad_())
        return extractor(classes.tolist(), scores, normalized=False)[0]


def _captum(network: Any, module: Any, images: Any, classes: Any) -> Any:
    from captum.attr import LayerGradCam

    return LayerGradCam(network, module).attribute(images.clone(), classes)[:, 0]


PEERS = {"pytorch-grad-cam": _grad_cam, "torchcam": _torchcam, "captum": _captum}


def compared(name: str) -> dict:
    """Returns a network's row beside the peers.

    Their maps differ by a share of the largest value, or they say why there is none. All is in
    double precision: in maps of random weights large terms cancel, and rounding would tell more
    than definitions. The peers keep tensors that layers in place then overwrite; these layers are
    switched to out of place.
    """
    import torch

    from camdrift.explain import cam, prepared

    network, size = build(name)
    network.double()
    for module in network.modules():
        if getattr(module, "inplace", False):
            module.inplace = False
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    several = torch.arange(CLASSES).expand(len(images), CLASSES)
    maps = cam.all_layers(network, images, several).maps["GradCAM"]
    watched, points = prepared.recall(network, prepared.Explaining()).watch(images)
    modules = dict(network.named_modules())
    results = watched.recording.results.items()
    outputs = {place: path for path, place in results if path in modules}
    there = [place for place, point in enumerate(points) if point.place in outputs]
    row: dict[str, Any] = {"network": name, "hook_points": len(points), "of_modules": len(there)}
    for peer, explain in PEERS.items():
        outcomes = []
        for place in sorted({there[0], there[len(there) // 2], there[-1]}) if there else []:
            module = network.get_submodule(outputs[points[place].place])
            # The class of the largest map: a map of zeros would agree with any other.
            classes = maps[place].amax((2, 3)).argmax(1)
            own = maps[place][torch.arange(len(images)), classes]
            try:
                raw = torch.as_tensor(explain(network, module, images, classes)).detach()
            except Exception as fault:
                outcomes.append(f"{type(fault).__name__}: {fault}"[:80])
                continue
            if raw.shape != own.shape:
                outcomes.append(f"a tensor {tuple(raw.shape)}")
                continue
            if not own.any():
                outcomes.append("an empty map of ours")
                continue
            error = (raw.clamp_min(0) - own).abs().max()
            outcomes.append(float(f"{float(error / own.max()):.1e}"))
        row[peer] = outcomes
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--limit", type=int, default=LIMIT, help="seconds for a network")
    parser.add_argument("names", nargs="*")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps((compared if arguments.peers else explained)(arguments.one)))
        return
    out = arguments.out or (BESIDE_PEERS if arguments.peers else EXPLAINED)
    selection = arguments.names or names()[:: SHARE if arguments.peers else 1]
    # Rows of an earlier run stay; delete the file to begin anew.
    before = json.loads(out.read_text()) if out.exists() else {"count": 0, "rows": []}
    rows, count = before["rows"], max(before["count"], len(selection))
    for name in selection:
        if name in {row["network"] for row in rows}:
            continue
        command = [sys.executable, __file__, "--one", name, *["--peers"] * arguments.peers]
        try:
            process = subprocess.run(
                command, capture_output=True, text=True, timeout=arguments.limit
            )
            row = json.loads(process.stdout.splitlines()[-1])
        except subprocess.TimeoutExpired:
            row = {"network": name, "refused": f"not finished in {arguments.limit} s"}
        except (IndexError, json.JSONDecodeError):
            row = {"network": name, "refused": process.stderr[-300:]}
        print(row, flush=True)
        rows.append(row)
        files.write_json(out, {"count": count, "rows": rows})


if __name__ == "__main__":
    main()
