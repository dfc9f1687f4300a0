"""FEM, of pytorch-grad-cam: channels weighted by the share of their places that stand out.

Fuad et al. 2020, "Features Understanding in 3D CNNs for Actions Recognition in Video". A place
stands out where it lies two standard deviations above its channel's mean. It uses no
gradient, so the map is the same for every class.
"""

from camdrift.explain.methods import library
from camdrift.models.tensors import Activations, Heatmaps

NAME = "FEM"
SEES_CLASS = False


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns the weighted sum over channels, rectified."""
    return library.from_arrays(NAME)(activations, gradients)
