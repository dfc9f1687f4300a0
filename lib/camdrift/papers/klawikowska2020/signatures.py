"""Signatures: relevance maps as vectors, their plane, and what it and they tell apart.

klawikowska2020 draws UMAP planes of LRP maps and reads from them that images near the other class
are the attackable ones, and that each attack leaves its own mark. Here both are numbers, in the
plane and in the space of the vectors, since UMAP draws clusters and gaps of its own.

Where a question has no answer, because there is one class, one kind or no other point, it is NaN.
"""

import warnings

import numpy as np
from sklearn import manifold
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import pairwise_distances
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from camdrift.models import tensors
from camdrift.pipeline import randomness, run
from camdrift.storage import arrays

NEIGHBOURS = 15
FEWEST = 4  # points that UMAP can lay out: its spectral start needs three eigenvectors
FOLDS = 5


class TooFewError(Exception):
    """There are fewer points than a plane needs; the message says how many."""


def vectors(maps: tensors.Heatmaps | arrays.Heatmaps) -> np.ndarray:
    """Returns signatures: float32 (n, h * w), each map divided by its largest absolute value.

    That is how iNNvestigate scales the heatmaps that klawikowska2020 prints; the paper does not say
    how it scales signatures. It takes the logit's size out, so that confident and doubtful images
    of one pattern are neighbours. Signs are kept; an empty map stays 0.

    Args:
        maps: raw and signed, as `lrp.relevance` returns them.

    Raises:
        FloatingPointError: a map is not finite.
    """
    flat = np.asarray(maps, dtype=np.float32).reshape(len(maps), -1)
    if not np.isfinite(flat).all():
        raise FloatingPointError("a relevance map is not finite; its model overflows")
    largest = np.abs(flat).max(axis=1, keepdims=True, initial=0)
    return flat / np.where(largest > 0, largest, 1)


def without_places(vectors: np.ndarray) -> np.ndarray:
    """Returns the values of each signature in ascending order: (n, d), blind to their places.

    A linear classifier of signatures can learn a mark that stands at one place in all images, as
    FGSM's does; that of a changed pixel stands elsewhere in each.
    """
    return np.sort(vectors, axis=1)


def embedding(
    vectors: np.ndarray, *, seed: int, neighbours: int = NEIGHBOURS, min_dist: float = 0.1
) -> np.ndarray:
    """Returns the points' places in the plane: float32 (n, 2), by UMAP.

    McInnes et al. 2018, arXiv 1802.03426, with the defaults of the public code: euclidean, spectral
    start. One thread and a seed make it the same every time on one machine and set of versions, on
    others not, so compare planes by `trustworthiness`.

    Args:
        vectors: (n, d), clean and attacked ones together.
        seed: of the layout.
        neighbours: of each point; n - 1 where there are fewer points.
        min_dist: how close the layout may put two points.

    Raises:
        TooFewError: there are fewer than 4 points.
    """
    if len(vectors) < FEWEST:
        raise TooFewError(
            f"wanted at least {FEWEST} signatures for a plane, got {len(vectors)}; take more images"
        )
    import numba  # it takes seconds, as umap does
    from umap import UMAP

    layout = UMAP(
        n_neighbors=min(neighbours, len(vectors) - 1),
        n_components=2,
        min_dist=min_dist,
        random_state=_seed(seed, "umap"),
        n_jobs=1,
    )
    # Numba takes all cores, and leaves that number of threads to torch.
    threads = run.threads()
    with threadpool_limits(threads):
        numba.set_num_threads(min(threads, numba.get_num_threads()))
        return layout.fit_transform(vectors)


def _seed(*key: int | str) -> int:
    """Returns a seed that NumPy's older generators take."""
    return randomness.entropy(*key) % 2**32


def trustworthiness(
    vectors: np.ndarray, plane: np.ndarray, *, neighbours: int = NEIGHBOURS
) -> float:
    """Returns how far neighbours in the plane are neighbours in the space, in [0, 1].

    Venna & Kaski 2001, as scikit-learn has it. It needs more than twice as many points as
    neighbours; with fewer points there are fewer neighbours, with fewer than three it is NaN.
    """
    neighbours = min(neighbours, (len(vectors) - 1) // 2)
    if neighbours < 1:
        return float("nan")
    return float(manifold.trustworthiness(vectors, plane, n_neighbors=neighbours))


def label_agreement(
    plane: np.ndarray,
    labels: np.ndarray,
    *,
    neighbours: int = NEIGHBOURS,
    groups: np.ndarray | None = None,
) -> arrays.PerImage:
    """Returns the share of each point's nearest neighbours that have its label, in [0, 1].

    Compare it with `chance_agreement`. Equally near points count in their order.

    Args:
        plane: (n, d), the points of any space.
        labels: (n,); where all are one, the share is NaN.
        neighbours: how many are looked at; all there are where there are fewer.
        groups: (n,), points of one group are no neighbours of each other. The image that each
            point is a variant of, or an attacked image finds its own clean one; its source
            picture, or tiles of one find each other, unless the classes are the pictures. None
            leaves out the point itself alone.
    """
    labels = np.asarray(labels)
    distances = _distances(plane, groups)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :neighbours]
    pairs = np.isfinite(np.take_along_axis(distances, nearest, axis=1))
    return _share(labels[nearest] == labels[:, None], pairs, labels)


def chance_agreement(labels: np.ndarray, *, groups: np.ndarray | None = None) -> arrays.PerImage:
    """Returns the share of all points that could be its neighbours with each point's label.

    Arguments are those of `label_agreement`, which has this value where labels mean nothing.
    """
    labels = np.asarray(labels)
    return _share(labels == labels[:, None], _apart(len(labels), groups), labels)


def _share(same: np.ndarray, counted: np.ndarray, labels: np.ndarray) -> arrays.PerImage:
    if len(np.unique(labels)) < 2:
        return np.full(len(labels), np.nan)
    with np.errstate(invalid="ignore"):
        return (same & counted).sum(1) / counted.sum(1)


def _apart(n: int, groups: np.ndarray | None) -> np.ndarray:
    """Returns which pairs may be neighbours: bool (n, n)."""
    names = np.arange(n) if groups is None else np.asarray(groups)
    return names != names[:, None]


def _distances(points: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Returns all distances (n, n), infinite between points that are no neighbours."""
    if not len(points):
        return np.zeros((0, 0))  # scikit-learn refuses
    return np.where(_apart(len(points), groups), pairwise_distances(points), np.inf)


def distance_to_other_class(
    vectors: np.ndarray, labels: np.ndarray, *, groups: np.ndarray | None = None
) -> arrays.PerImage:
    """Returns the distance to the nearest point of another class; NaN where there is none.

    Args:
        vectors: (n, d), the points of any space, also those of the plane.
        labels: (n,), their classes.
        groups: see `label_agreement`.
    """
    labels = np.asarray(labels)
    distances = _distances(vectors, groups)
    same = labels == labels[:, None]
    nearest = np.where(same, np.inf, distances).min(axis=1, initial=np.inf)
    return np.where(np.isfinite(nearest), nearest, np.nan)


def guesses(vectors: np.ndarray, kinds: np.ndarray, groups: np.ndarray, *, seed: int) -> np.ndarray:
    """Returns what a linear classifier takes each signature for: object (n,).

    It learns from four fifths of the source pictures and guesses the others, in turn: ridge
    regression on standardised values, penalised as much as they are many, all kinds weighing the
    same.

    Args:
        vectors: (n, d).
        kinds: (n,), what was done to each image: nothing, one attack, another.
        groups: (n,), source pictures; none is learnt from and guessed at once.
        seed: of the fifths.

    Returns:
        A kind each; None everywhere where there are fewer than two kinds or pictures.
    """
    kinds, groups = np.asarray(kinds), np.asarray(groups)
    answers = np.full(len(kinds), None, dtype=object)
    names, counts = np.unique(kinds, return_counts=True)
    folds = min(FOLDS, len(np.unique(groups)), counts.max(initial=0))
    if len(names) < 2 or folds < 2:
        return answers
    classifier = make_pipeline(
        StandardScaler(), RidgeClassifier(alpha=vectors.shape[1], class_weight="balanced")
    )
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=_seed(seed, "folds"))
    with warnings.catch_warnings():  # a kind of fewer images than folds is flagged in the report
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        parts = list(split.split(vectors, kinds, groups))
    for learn, rest in parts:
        if len(np.unique(kinds[learn])) < 2:  # nothing to tell apart
            answers[rest] = kinds[learn][0]
        elif len(rest):
            answers[rest] = classifier.fit(vectors[learn], kinds[learn]).predict(vectors[rest])
    return answers
