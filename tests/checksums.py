"""Prints the sha256 of weights, maps, attacks or statistics, as this processor computes them.

`python tests/checksums.py weights` trains a convolutional, a residual and an attention network, as
`stages/train.py` does, for two steps; `maps` explains such networks at random weights, as
`stages/cam.py` does, with one thread; `attacks` attacks them, as `stages/attack.py` does, and
scales noise to the attack's size; `statistics` calls the functions of NumPy, SciPy, scikit-image
and scikit-learn that scores, detectors and reports rest on.
"""

import hashlib
import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage, stats
from skimage.metrics import structural_similarity
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from camdrift.attacks import dlfuzz, map_keeping, pgd
from camdrift.explain import cam
from camdrift.models import architectures, training
from camdrift.models.model import Model
from camdrift.perturbations import perturbation, size
from camdrift.pipeline import processor

COMMITTED = Path(__file__).with_name("checksums.json")
SIZE, CLASSES, THREADS = 32, 4, 2
ATTENTION = {"img_size": SIZE, "patch_size": 8, "depth": 2, "embed_dim": 32, "num_heads": 2}
NETWORKS: dict[str, dict] = {
    "vgg16_bn": {"width": 0.125, "head": "pooled"},
    "resnet18": {"width": 0.125, "head": "torchvision"},
    "timm:vit_tiny_patch16_224": {"width": 1, "head": "torchvision", "arguments": ATTENTION},
}


def digest(tensors: Iterable[Tensor]) -> str:
    """Returns the first 16 digits of the sha256 of some tensors' bytes."""
    return _digest(tensor.detach().contiguous().numpy() for tensor in tensors)


def _digest(arrays: Iterable[np.ndarray]) -> str:
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


def weights() -> dict[str, str]:
    """Returns the digest of each network's trained weights."""
    processor.limit(THREADS)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(48, 3, SIZE, SIZE, generator=generator)
    labels = torch.arange(len(images)) % CLASSES
    digests = {}
    for name, settings in NETWORKS.items():
        network = _network(name, settings)
        training.train(
            network, (images[:32], labels[:32]), (images[32:], labels[32:]),
            mean=[0.5] * 3, std=[0.25] * 3, size=SIZE, layers="all", epochs=1, batch=16,
            learning_rate=0.002, weight_decay=0.01, shift=4, flip=True, seed=1,
        )  # fmt: skip
        digests[name] = digest(network.state_dict().values())
    return digests


def maps() -> dict[str, str]:
    """Returns the digest of each network's maps."""
    torch.set_num_threads(1)
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    digests = {}
    for name, settings in NETWORKS.items():
        network = _network(name, settings).eval()
        answer = cam.all_layers(network, images, torch.arange(len(images)) % CLASSES)
        digests[name] = digest(answer.maps["GradCAM"])
    return digests


ATTACKS: dict[str, tuple] = {
    "dlfuzz": (dlfuzz.perturb, {
        "rivals": 2, "rival_weight": 0.5, "neurons": 5, "neuron_weight": 0.5, "strategies": [1],
        "threshold": 0.25, "step": 4.0, "iterations": 1, "max_steps": 6, "norm_limit": 0.2,
        "min_gain": None, "tables": "per_seed", "differs_from": "clean", "mutant": "last",
    }),
    "pgd": (pgd.perturb, {
        "eps": 0.05, "step": 0.02, "steps": 3, "random_start": True, "early_stop": False,
    }),
    "map_keeping": (map_keeping.perturb, {
        "eps": 0.05, "step": 0.3, "steps": 3, "beta": [10.0, 100.0], "layers": None,
        "bisections": 2, "explains": "own_top1",
    }),
}  # fmt: skip


def attacks() -> dict[str, str]:
    """Returns the digest of each network's attacked images, their sizes and noise of these."""
    torch.set_num_threads(1)
    images = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    base = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    digests = {}
    for name, settings in NETWORKS.items():
        network = _network(name, settings).eval()
        model = Model(network, mean=[0.5] * 3, std=[0.25] * 3, size=SIZE, micro_batch=4)
        for attack, (perturb, own) in ATTACKS.items():
            if attack == "map_keeping" and name.startswith("timm:"):
                continue  # its ReLUs are smoothed, and a transformer has none
            change, effect = perturbation.run(
                perturb, model, model, images, model(images).argmax(1),
                generators=[np.random.default_rng(i) for i in range(len(images))], settings=own,
            )  # fmt: skip
            sizes = torch.tensor(effect[["l2", "linf", "rms"]].to_numpy(dtype=float))
            factors = size.scale_to(images, base, sizes[:, :1])
            digests[f"{name} {attack}"] = digest([change.pixels, sizes, factors])
    return digests


def statistics() -> dict[str, str]:
    """Returns the digest of each library's results."""
    generator = np.random.default_rng(0)
    pictures = generator.random((2, 64, 64))
    features, labels = generator.normal(size=(400, 12)), np.arange(400) % 2
    features[:, 0] += labels
    regression = LogisticRegression().fit(features, labels)
    values = np.abs(features).ravel()
    return {
        "numpy": _digest([np.exp(values), np.log(values), np.tanh(values), values**0.3,
                          np.exp(values.astype(np.float32)), np.cov(features.T),
                          np.linalg.solve(features.T @ features, features[0])]),
        "scipy": _digest([ndimage.gaussian_filter(pictures[0], 1.5),
                          np.array(stats.wilcoxon(features[:, 0], features[:, 1])),
                          np.array(stats.spearmanr(features[:, 0], features[:, 1]))]),
        "skimage": _digest([structural_similarity(*pictures, data_range=1.0, full=True)[1]]),
        "sklearn": _digest([regression.coef_, regression.predict_proba(features)]),
    }  # fmt: skip


def _network(name: str, settings: dict) -> nn.Module:
    torch.manual_seed(0)
    return architectures.build(
        architecture=name, classes=CLASSES, size=SIZE, initialised=True, **settings
    )


def here() -> dict[str, str]:
    """Returns what is known of this processor: its name, its instructions and its caches."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    facts = dict(re.findall(r"^(vendor_id|cpu family|model|model name)\s*: (.*)$", text, re.M))
    flags = set(re.search(r"^flags\s*: (.*)$", text, re.M)[1].split()) if "flags" in text else set()
    told = [flag for flag in sorted(flags) if flag.startswith(("avx", "amx", "fma"))]
    caches = Path("/sys/devices/system/cpu/cpu0/cache")
    sizes = [(folder / "size").read_text().strip() for folder in sorted(caches.glob("index*"))]
    kind = (facts.get(key, "?") for key in ("vendor_id", "cpu family", "model"))
    return {
        "processor": f"{facts.get('model name', 'unknown')} ({', '.join(kind)})",
        "instructions": " ".join(told),
        "caches": " ".join(sizes),
    }


PARTS = {"weights": weights, "maps": maps, "attacks": attacks, "statistics": statistics}

if __name__ == "__main__":
    print(json.dumps(PARTS[sys.argv[1]]()))
