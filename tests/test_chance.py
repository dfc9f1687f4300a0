import numpy as np
import pytest

from camdrift.datasets import chance

LABELS = np.array([0] * 30 + [1] * 10)


def test_chance_is_the_share_of_the_most_frequent_class():
    assert chance.level(LABELS) == 0.75
    assert chance.level(LABELS[:0]) == 0.0


@pytest.mark.parametrize(
    ("right", "above"), [(0, False), (30, False), (35, False), (36, True), (40, True)]
)
def test_surely_above_chance_is_by_wilsons_interval(right, above):
    # Wilson (1927), by its own formula, z = 1.96.
    n, z = len(LABELS), 1.959963984540054
    p = right / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    reach = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    assert (middle - reach > 0.75) == above
    assert chance.is_surely_above(right, LABELS) == above
    assert bool(chance.warning(right, LABELS)) != above


def test_without_images_nothing_is_above_chance():
    assert not chance.is_surely_above(0, LABELS[:0])
    assert "0 images" in chance.warning(0, LABELS[:0])
