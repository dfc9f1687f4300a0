import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from camdrift.papers.klawikowska2020 import signatures
from conftest import ROOT

NAN = float("nan")


def clouds(n=20, gap=8.0, seed=0):
    """Two clouds of n points each in ten dimensions, and which is which."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], n)
    return (rng.normal(size=(2 * n, 10)) + gap * labels[:, None]).astype(np.float32), labels


def test_vectors_on_paper():
    maps = torch.tensor([[[1.0, -4.0], [2.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    vectors = signatures.vectors(maps)
    assert vectors.dtype == np.float32
    assert vectors.tolist() == [[0.25, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]]


def test_vectors_that_are_not_finite_are_refused():
    with pytest.raises(FloatingPointError, match="not finite"):
        signatures.vectors(np.array([[[1.0, np.inf]]]))


def test_one_seed_one_plane_and_no_global_randomness():
    points, _ = clouds()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    first = signatures.embedding(points, seed=2**62)
    np.testing.assert_array_equal(first, signatures.embedding(points, seed=2**62))
    assert (state == np.random.get_state()[1]).all()  # noqa: NPY002
    assert first.shape == (40, 2)
    assert np.isfinite(first).all()
    assert not np.allclose(first, signatures.embedding(points, seed=3))


def test_a_plane_keeps_clouds_apart():
    points, labels = clouds()
    plane = signatures.embedding(points, seed=0, neighbours=5)
    assert signatures.label_agreement(plane, labels, neighbours=5).mean() > 0.95
    assert signatures.trustworthiness(points, plane, neighbours=5) > 0.7


@pytest.mark.parametrize("n", [4, 5, 16])
def test_few_points_have_fewer_neighbours(n):
    points = clouds()[0][:n]
    assert np.isfinite(signatures.embedding(points, seed=0)).all()


def test_too_few_points_are_refused():
    with pytest.raises(signatures.TooFewError, match="wanted at least 4 signatures.*got 3"):
        signatures.embedding(clouds()[0][:3], seed=0)


def test_trustworthiness():
    points, _ = clouds()
    assert signatures.trustworthiness(points, points) == 1
    shuffled = points[np.random.default_rng(0).permutation(40)]
    assert signatures.trustworthiness(points, shuffled) < 0.7
    assert signatures.trustworthiness(points[:3], points[:3]) == 1  # one neighbour each
    assert np.isnan(signatures.trustworthiness(points[:2], points[:2]))


LINE = np.array([[0.0], [1.0], [3.0], [7.0]])  # distances: 1 3 7, 1 2 6, 3 2 4, 7 6 4
LABELS = np.array(["a", "a", "b", "b"])


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [(1, [1, 1, 0, 1]), (2, [0.5, 0.5, 0, 0.5]), (15, [1 / 3] * 4)],
)
def test_label_agreement_on_paper(neighbours, expected):
    agreement = signatures.label_agreement(LINE, LABELS, neighbours=neighbours)
    np.testing.assert_allclose(agreement, expected)


def test_points_of_one_picture_are_no_neighbours():
    groups = np.array([0, 0, 1, 1])
    agreement = signatures.label_agreement(LINE, LABELS, neighbours=1, groups=groups)
    np.testing.assert_array_equal(agreement, [0, 0, 0, 0])  # the nearest of the other picture
    alone = signatures.label_agreement(LINE, LABELS, groups=np.zeros(4))
    assert np.isnan(alone).all()


def test_a_point_is_not_its_own_neighbour_where_another_lies_upon_it():
    points = np.array([[0.0], [0.0], [5.0]])
    agreement = signatures.label_agreement(points, np.array([0, 1, 1]), neighbours=1)
    assert agreement[:2].tolist() == [0, 0]


def test_chance_agreement_on_paper_and_for_labels_that_mean_nothing():
    labels = np.array([0, 0, 0, 1, 1])
    np.testing.assert_allclose(signatures.chance_agreement(labels), [0.5, 0.5, 0.5, 0.25, 0.25])
    rng = np.random.default_rng(0)
    labels = rng.random(2000) < 0.3
    agreement = signatures.label_agreement(rng.normal(size=(2000, 2)), labels)
    assert agreement.mean() == pytest.approx(signatures.chance_agreement(labels).mean(), abs=0.02)


def test_one_class_has_no_agreement():
    assert np.isnan(signatures.label_agreement(LINE, np.zeros(4))).all()
    assert np.isnan(signatures.chance_agreement(np.zeros(4))).all()
    assert len(signatures.label_agreement(np.zeros((0, 2)), np.zeros(0))) == 0


def test_distance_to_other_class_on_paper():
    distances = signatures.distance_to_other_class(LINE, LABELS)
    np.testing.assert_allclose(distances, [3, 2, 2, 6])


@pytest.mark.parametrize(
    ("points", "labels", "groups", "expected"),
    [
        ([0, 0, 2], "aab", None, [2, 2, 2]),
        ([0, 0, 0], "aab", None, [0, 0, 0]),
        ([0, 1, 2], "aaa", None, [NAN, NAN, NAN]),
        (
            [0, 1, 3, 7],
            "abab",
            [0, 0, 1, 1],
            [7, 2, 2, 7],
        ),  # not the picture's other one
        ([], "", None, []),
    ],
)
def test_distances_at_the_edge(points, labels, groups, expected):
    space = np.array(points, dtype=float).reshape(-1, 1)
    groups = None if groups is None else np.array(groups)
    distances = signatures.distance_to_other_class(space, np.array(list(labels)), groups=groups)
    np.testing.assert_allclose(distances, expected)


def kinds_of(marks, pictures=30, seed=0):
    """Signatures of pictures, each of three kinds: its own pattern, and the kind's mark on it."""
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(pictures, 40))
    mark = rng.normal(size=(3, 40))
    points = np.concatenate([base + marks * mark[k] for k in range(3)])
    kinds = np.repeat(["clean", "fgsm", "one_pixel"], pictures)
    return points.astype(np.float32), kinds, np.tile(np.arange(pictures), 3)


def identified(vectors, kinds, groups, *, seed: int) -> float:
    """How often guesses are right, all kinds weighing the same; NaN where there are none."""
    guesses = signatures.guesses(vectors, kinds, groups, seed=seed)
    if not len(guesses) or guesses[0] is None:
        return NAN
    return float(np.mean([(guesses[kinds == kind] == kind).mean() for kind in np.unique(kinds)]))


def test_marks_are_identified_and_their_absence_is_chance():
    assert identified(*kinds_of(3.0), seed=0) == 1
    assert identified(*kinds_of(0.0), seed=0) < 0.5
    first, again = (signatures.guesses(*kinds_of(0.5), seed=4) for _ in range(2))
    assert (first == again).all()


def test_values_without_places_tell_a_mark_that_moves():
    """A large value at another place in each image: no place tells it, but the values do."""
    rng = np.random.default_rng(0)
    points, kinds = rng.normal(size=(200, 30)), np.repeat(["clean", "one_pixel"], 100)
    points[np.arange(100, 200), rng.integers(30, size=100)] = rng.choice([-8, 8], 100)
    groups = np.arange(200)
    assert identified(points, kinds, groups, seed=0) < 0.75
    assert identified(signatures.without_places(points), kinds, groups, seed=0) > 0.95
    order = rng.permutation(30)
    moved = signatures.without_places(points[:, order])
    np.testing.assert_array_equal(moved, signatures.without_places(points))
    for row, own in zip(moved[:3], points[:3], strict=True):
        assert list(row) == sorted(own)


def test_pictures_that_are_learnt_from_are_not_guessed():
    # Each picture's copies are equal, and kinds go by picture: only leaking would tell them.
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(40, 200)), 4, axis=0)
    kinds = np.repeat(np.arange(40) % 2, 4)
    assert identified(points, kinds, np.repeat(np.arange(40), 4), seed=0) < 0.75
    assert identified(points, kinds, np.arange(160), seed=0) == 1


def test_kinds_weigh_the_same():
    points, kinds, groups = kinds_of(0.0)
    kinds = np.where(np.arange(90) < 6, "fgsm", "clean")
    assert identified(points, kinds, groups, seed=0) < 0.8  # a constant has 0.93 hits


def test_what_cannot_be_told_apart_is_nan():
    points, kinds, groups = kinds_of(1.0)
    assert np.isnan(identified(points, np.full(90, "clean"), groups, seed=0))
    assert np.isnan(identified(points, kinds, np.zeros(90), seed=0))
    assert np.isnan(identified(points[:0], kinds[:0], groups[:0], seed=0))
    two = signatures.guesses(points[[0, 40]], kinds[[0, 40]], groups[[0, 40]], seed=0)
    assert two.tolist() == [None, None]


# In a process of its own, whose libraries have set no number of threads yet.
THREADS = """
import numpy as np
import torch
from camdrift.papers.klawikowska2020 import signatures

before = torch.get_num_threads()
signatures.embedding(np.random.default_rng(0).random((40, 6)), seed=1)
assert torch.get_num_threads() == before == 1, (before, torch.get_num_threads())
"""


def test_a_layout_leaves_torch_its_number_of_threads():
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "lib")}
    subprocess.run([sys.executable, "-W", "ignore", "-c", THREADS], env=environment, check=True)
