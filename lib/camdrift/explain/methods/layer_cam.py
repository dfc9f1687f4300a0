"""LayerCAM: every place weighted by its own positive gradient.

Jiang et al. 2021, "LayerCAM: Exploring Hierarchical Class Activation Maps for Localization",
equations 5 and 6.
"""

from camdrift.models.tensors import Activations, Heatmaps

NAME = "LayerCAM"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns relu of the sum over channels of positive gradient times activation."""
    return unrectified_map(activations, gradients).relu()


def unrectified_map(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns the sum over channels, with its negative values."""
    return (gradients.relu() * activations).sum(dim=1)
