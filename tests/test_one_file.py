"""A new attack, method, score or detector is a file and a line of params.yaml, and in all results.

Into a copy of the repository one new file of each kind is dropped, and the tiny study is run there.
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from ruamel.yaml import YAML

import small
from conftest import TINY, activate, copy_of_repository

STUDY, DETECTORS, CELL = "tiny", "tiny_detectors", "tiny_fgsm"


@dataclass(frozen=True)
class Piece:
    """A file of the library, and the line of params.yaml that it requires.

    file: below lib/camdrift.
    text: of the file.
    before: a piece of params.yaml.
    after: what takes its place.
    """

    file: str
    text: str
    before: str
    after: str


METHOD = Piece(
    "explain/methods/squared_gradients.py",
    '''"""Squared gradients: places weighted by how much they matter, whichever way."""

from torch import Tensor

NAME = "SquaredGradients"


def maps(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns relu of the sum over channels of squared gradient times activation."""
    return (gradients.square() * activations).sum(dim=1).relu()
''',
    "  - FEM\n",
    "  - FEM\n  - SquaredGradients\n",
)
SCORE = Piece(
    "scores/rank_correlation.py",
    '''"""Spearman's rank correlation of the values of two maps."""

import numpy as np
from scipy.stats import rankdata

LABEL = "rank correlation"
RANGE = (-1.0, 1.0)
HIGHER_IS_ALIKE = True


def score(first: np.ndarray, second: np.ndarray, *, size: int) -> np.ndarray:
    """Returns the correlation of ranks, NaN where a map is flat: (n,)."""
    a, b = (rankdata(maps.reshape(len(maps), -1), axis=1) for maps in (first, second))
    a, b = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (a, b))
    norms = np.sqrt((a * a).sum(1) * (b * b).sum(1))
    return np.where(norms > 0, (a * b).sum(1) / np.where(norms > 0, norms, 1), np.nan)
''',
    "  beside:\n",
    "  beside:\n  - rank_correlation\n",
)
DETECTOR = Piece(
    "detectors/total_variation.py",
    '''"""Total variation: the mean difference of neighbouring pixels, which perturbations raise."""

from camdrift.detectors.detector import Single
from camdrift.settings.section import Positive, Section


class Settings(Section):
    """The power of a difference."""

    power: Positive


def passes(settings):
    """Returns the forward passes of the model that an image costs."""
    return 0


def _variation(pixels, power):
    down, across = pixels.diff(dim=2).abs(), pixels.diff(dim=3).abs()
    return down.pow(power).mean((1, 2, 3)) + across.pow(power).mean((1, 2, 3))


def measure(images, settings):
    """Returns `total_variation`."""
    return {"total_variation": _variation(images.pixels, settings.power).numpy()}


def readings(settings):
    """Returns the detector by its name in tables."""
    return {"total_variation": Single("total_variation")}


def surrogate(detector, model, settings):
    """Returns the variation itself."""
    return lambda batch: (model(batch), _variation(batch, settings.power))
''',
    "    chance: {}\n",
    "    chance: {}\n    total_variation: {power: 1.5}\n",
)
ATTACK = Piece(
    "attacks/momentum.py",
    '''"""The momentum iterative method: steps along the sign of an accumulated gradient.

Dong et al. 2018, "Boosting Adversarial Attacks with Momentum", algorithm 1.
"""

import torch

from camdrift.models import gradients
from camdrift.perturbations.perturbation import Perturbation
from camdrift.settings.section import Count, Section, Share


class Settings(Section):
    """Settings of the momentum iterative method."""

    eps: Share
    steps: Count
    decay: Share = 1.0


def perturb(model, pixels, labels, *, generators, eps, steps, decay):
    """Returns a change of at most eps of each pixel value, after `steps` steps of eps / steps."""
    change, momentum = torch.zeros_like(pixels), torch.zeros_like(pixels)
    for _ in range(steps):
        gradient, _ = gradients.cross_entropy(model, (pixels + change).clamp(0, 1), labels)
        size = gradient.abs().mean((1, 2, 3), keepdim=True)
        momentum = decay * momentum + gradient / size.clamp_min(1e-12)
        change = (change + eps / steps * momentum.sign()).clamp(-eps, eps)
    return Perturbation(change, torch.full((len(pixels),), steps))
''',
    "  none: {}\n",
    "  none: {}\n  momentum: {eps: 0.1, steps: 4}\n",
)
PIECES = (ATTACK, METHOD, SCORE, DETECTOR)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The copy, with a study of one cell built."""
    folder = copy_of_repository(tmp_path_factory.mktemp("one_file"), preset=None)
    text = (folder / "params.yaml").read_text()
    for piece in PIECES:
        assert not (folder / "lib" / "camdrift" / piece.file).exists()
        (folder / "lib" / "camdrift" / piece.file).write_text(piece.text)
        assert text.count(piece.before) == 1, piece.before
        text = text.replace(piece.before, piece.after)
    (folder / "params.yaml").write_text(text)
    activate(folder / "params.yaml", TINY)
    yaml = YAML()
    content = yaml.load(folder / "params.yaml")
    content |= {part: {} for part in small.WITHOUT}
    cell = content["cells"][CELL]
    other = {"attack": "momentum", "override": {}, "strengths": [1.0]}
    content |= {"cells": {CELL: cell | {"adaptive": True}, "tiny_momentum": cell | other}}
    content["studies"] = {
        name: content["studies"][name] | {"headline": CELL} for name in (STUDY, DETECTORS)
    }
    content |= {"models": {"vgg11_eighth": content["models"]["vgg11_eighth"]}}
    content |= {"sets": {"digits": content["sets"]["digits"]}}
    yaml.dump(content, folder / "params.yaml")
    small.repro(folder)
    return folder


def table(folder: Path, name: str, study: str = STUDY) -> pd.DataFrame:
    return pd.read_csv(folder / "data/reports" / study / "tables" / f"{name}.csv")


def test_an_attack_is_in_tables_and_report(built):
    rows = table(built, "attacks").query("attack == 'momentum'")
    assert (rows["evaluations"] == 4).all()
    assert rows["success_rate"].between(0, 1).all()
    assert "momentum" in (built / "data/reports" / f"{STUDY}.html").read_text()


def test_a_method_is_in_tables_and_report(built):
    rows = table(built, "methods").query("method == 'SquaredGradients'")
    assert rows["mean"].notna().any()
    assert "SquaredGradients" in (built / "data/reports" / f"{STUDY}.html").read_text()


def test_a_score_is_in_tables_and_report(built):
    rows = table(built, "similarity").query("score == 'rank_correlation'")
    assert rows["mean"].dropna().between(-1, 1).all()
    assert rows["n"].sum() > 0
    assert "rank correlation" in (built / "data/reports" / f"{STUDY}.html").read_text()


def test_a_detector_is_in_tables_and_report(built):
    rows = table(built, "detectors", DETECTORS).query("detector == 'total_variation'")
    assert rows["auroc"].notna().any()
    assert set(rows["rule"]) == {"chosen"}
    assert table(built, "judged", DETECTORS)["total_variation"].notna().all()
    adaptive = table(built, "adaptive", DETECTORS).query("detector == 'total_variation'")
    assert set(adaptive["arm"]) == {"non_adaptive", "adaptive"}
    assert "total_variation" in (built / "data/reports" / f"{DETECTORS}.html").read_text()


# In a process of its own, whose library is the copy's.
SHOWN = """
from streamlit.testing.v1 import AppTest


def page(name, study="tiny", **query):
    app = AppTest.from_file("dashboard/app.py", default_timeout=60)
    app.query_params["study"] = study
    for key, value in query.items():
        app.query_params[key] = value
    app.run()
    app.switch_page(f"app_pages/{name}.py").run()
    assert not app.exception, app.exception
    return app


layers = page("layers")
assert "tiny_momentum" in layers.selectbox(key="cell").options
assert "SquaredGradients" in layers.selectbox(key="method").options
assert "rank_correlation" in layers.selectbox(key="score").options
layers.selectbox(key="score").set_value("rank_correlation").run()
assert not layers.exception, layers.exception
assert len(layers.get("plotly_chart")) > 1
layers.selectbox(key="rows").set_value("methods").run()
assert not layers.exception, layers.exception
detectors = page("detectors", "tiny_detectors")
assert "total_variation" in detectors.selectbox(key="detector").options
detectors.selectbox(key="detector").set_value("total_variation").run()
assert not detectors.exception, detectors.exception
"""


def test_the_dashboard_offers_them(built):
    pytest.importorskip("streamlit")
    path = {"PYTHONPATH": str(built / "lib")}
    answer = subprocess.run(
        [sys.executable, "-c", SHOWN], cwd=built, env=small.environment(**path),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.file)
def test_without_the_file_the_line_is_refused(piece, tmp_path):
    folder = copy_of_repository(tmp_path, preset=None)
    text = (folder / "params.yaml").read_text().replace(piece.before, piece.after)
    (folder / "params.yaml").write_text(text)
    answer = subprocess.run(
        ["sh", "stages/run", "check"], cwd=folder, env=small.environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode
    assert Path(piece.file).stem in answer.stderr or "SquaredGradients" in answer.stderr
    assert "there are: " in answer.stderr
