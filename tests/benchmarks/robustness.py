"""`make robustness`: robust accuracies of two classifiers of CIFAR-10, here and by torchattacks.

Auto-PGD is camdrift's own; FAB and Square are torchattacks', called by camdrift's runner, which
judges all attacks alike. Beside them stand torchattacks' own runs, as its documentation says, on
networks that camdrift did not touch. DATA is a folder with `test/<class>/*.png`, WEIGHTS that of
the checkpoints, see the preset `cifar10`. About ten minutes.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from camdrift import attacks
from camdrift.models.model import Model
from camdrift.ops.robustness import PATH
from camdrift.perturbations import perturbation
from camdrift.pipeline import randomness
from camdrift.settings.imports import function
from camdrift.storage import files
from camdrift.storage.pixels import from_8bit

NETWORKS = {
    "ResNet-20": (3, "cifar10_resnet20-12fca82f.th"),
    "ResNet-32": (5, "cifar10_resnet32-d509ac18.th"),
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as they were trained
COUNT, BATCH, SEED = 200, 50, 1
# torchattacks' arguments; ours of Auto-PGD are the same. At the usual 8/255 no image is classified
# right, and at the size of the others too many are under Square, which has no gradients.
ATTACKS: dict[str, dict[str, Any]] = {
    "APGD": {"eps": 0.003, "steps": 50, "loss": "ce"},
    "FAB": {"eps": 0.003, "steps": 10, "n_classes": 10},
    "Square": {"eps": 0.006, "n_queries": 500},
}


class Normalised(nn.Module):
    """A network of pixels in [0, 1], without any part of camdrift."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network((pixels - self.mean) / self.std)


def images(folder: Path) -> tuple[Tensor, Tensor]:
    """Returns the first test images of each class, pixels and labels."""
    classes = sorted(path for path in (folder / "test").iterdir() if path.is_dir())
    pairs = [
        (path, label)
        for label, own in enumerate(classes)
        for path in sorted(own.glob("*.png"))[: COUNT // len(classes)]
    ]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in pairs])
    labels = torch.tensor([label for _, label in pairs])
    return torch.from_numpy(from_8bit(pixels)).contiguous(), labels


def network(blocks: int, path: Path) -> nn.Module:
    """Returns a classifier with its published weights."""
    built = function("cifar_resnet:ResNet", "network")(blocks=blocks)
    state = torch.load(path, map_location="cpu", weights_only=True)["state_dict"]
    built.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    return built.eval()


def ours(name: str, model: Model, pixels: Tensor, labels: Tensor) -> Tensor:
    """Returns which images are right after an attack that camdrift runs."""
    own, settings = "library", {"name": f"torchattacks:{name}", "arguments": ATTACKS[name]}
    if name == "APGD":
        own, settings = "apgd", ATTACKS[name] | {"restarts": 1, "rho": 0.75}
    generators = [randomness.generator(SEED, name, i) for i in range(len(pixels))]
    _, effect = perturbation.run(
        attacks.perturbing(own), model, model, pixels, labels, generators=generators,
        settings=settings, shard=BATCH,
    )  # fmt: skip
    return torch.tensor(effect["adversarial"].tolist()) == labels


def theirs(name: str, model: nn.Module, pixels: Tensor, labels: Tensor) -> Tensor:
    """Returns which images are right after torchattacks' own run."""
    import torchattacks

    right = []
    for batch, classes in zip(pixels.split(BATCH), labels.split(BATCH), strict=True):
        attacked = getattr(torchattacks, name)(model, **ATTACKS[name])(batch, classes)
        with torch.no_grad():
            right.append(model(attacked).argmax(1) == classes)
    return torch.cat(right)


def main() -> None:
    from camdrift.pipeline.vision import torchvision

    assert torchvision  # which torchattacks imports
    folders = {name: os.environ.get(f"CAMDRIFT_{name}", "") for name in ("DATA", "WEIGHTS")}
    if missing := [name for name, folder in folders.items() if not Path(folder or "-").is_dir()]:
        sys.exit(
            f"wanted folders in {' and '.join(folders)}, got none in {', '.join(missing)}: "
            "make robustness DATA=... WEIGHTS=..., those of the preset `cifar10`"
        )
    data, weights = map(Path, folders.values())
    pixels, labels = images(data)
    rows = []
    progress = tqdm(total=len(NETWORKS) * len(ATTACKS), unit="attack")
    for key, (blocks, file) in NETWORKS.items():
        own = Model(network(blocks, weights / file), mean=MEAN, std=STD, size=32, micro_batch=BATCH)
        # Else torchattacks finds it in training mode, and leaves its batch norms in that mode.
        plain = Normalised(network(blocks, weights / file)).eval()
        with torch.no_grad():
            clean = float((plain(pixels).argmax(1) == labels).float().mean())
        for name in ATTACKS:
            row: dict[str, Any] = {"network": key, "attack": name, "images": len(pixels)}
            row |= {"eps": ATTACKS[name]["eps"], "clean": clean}
            for side, run, model in (("ours", ours, own), ("theirs", theirs, plain)):
                start = time.perf_counter()
                right = run(name, model, pixels, labels)
                row[side] = float(right.float().mean())
                row[f"{side}_seconds"] = round(time.perf_counter() - start, 1)
            rows.append(row)
            files.write_json(PATH, {"rows": rows})
            progress.update()


if __name__ == "__main__":
    main()
