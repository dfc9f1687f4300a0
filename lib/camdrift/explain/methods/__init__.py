"""CAM methods, one file a method: activations and gradients of a layer -> its raw maps.

The file of a method defines `NAME`, its name in params.yaml and in tables, and a function `maps`.
Both arguments are (n, c, h, w): the tensor of a layer and the gradient of the explained score with
respect to it. The function returns (n, h, w), without negative values, neither scaled nor resized.
It leaves its arguments unchanged, and the map of an image does not depend on the rest of the batch.
`SEES_CLASS = False` states that the method ignores the gradients: the map of an image is then the
same for every class, and computed once. Every file in this folder is available by its `NAME`
without registration; a file without `NAME` holds code that methods share.
`camdrift.explain.external` has further methods of pytorch-grad-cam.
"""

from collections.abc import Callable, Sequence
from functools import cache

from camdrift.models.tensors import Activations, Heatmaps
from camdrift.pipeline import discovery

Method = Callable[[Activations, Activations], Heatmaps]


@cache
def by_name() -> dict[str, Method]:
    """Returns every method's function by the method's name."""
    modules = discovery.members(__name__, "NAME").values()
    return {module.NAME: module.maps for module in modules}


@cache
def blind() -> frozenset[str]:
    """Returns the names of the methods whose maps do not depend on the class."""
    modules = discovery.members(__name__, "NAME").values()
    return frozenset(m.NAME for m in modules if not getattr(m, "SEES_CLASS", True))


def check(names: Sequence[str]) -> list[str]:
    """Returns an error message for each name that is not a method."""
    there = ", ".join(sorted(by_name()))
    return [
        f"wanted a method, got '{name}'; there are: {there}"
        for name in names
        if name not in by_name()
    ]
