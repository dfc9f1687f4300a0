"""CAM methods, one file a method: activations and gradients of a layer -> its raw maps.

A method's file has `NAME`, what params.yaml and tables call it, and a function `maps`. Both its
arguments are (n, c, h, w): a layer's tensor and the gradient of the explained score by it. What it
returns is (n, h, w), without negative values, neither scaled nor resized; the arguments are left as
they are, and maps of an image do not depend on those beside it. `SEES_CLASS = False` says that the
gradients are not looked at: the map of an image is then the same for every class, and made once.
Every file in this folder is known by its `NAME` at once; a file without one is what methods share.
`camdrift.explain.external` has further methods of pytorch-grad-cam.
"""

from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

from camdrift.pipeline import discovery

Method = Callable[[Tensor, Tensor], Tensor]


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
    """Returns a line for each name that is no method's: what was wanted, what came."""
    there = ", ".join(sorted(by_name()))
    return [
        f"wanted a method, got '{name}'; there are: {there}"
        for name in names
        if name not in by_name()
    ]
