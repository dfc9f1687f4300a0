"""XGrad-CAM: as Grad-CAM, the mean of gradients weighted by the activations.

Fu et al. 2020, "Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs"
(arXiv 2008.02312), equation 8.
"""

import torch

from camdrift.explain.methods.weighting import weighted_sum
from camdrift.models.tensors import Activations, Heatmaps

NAME = "XGradCAM"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns relu of the weighted sum; a channel without activation has no weight."""
    sums = activations.sum(dim=(2, 3))
    products = (gradients * activations).sum(dim=(2, 3))
    return weighted_sum(activations, products / torch.where(sums == 0, 1.0, sums)).relu()
