"""Element-wise Grad-CAM, of pytorch-grad-cam: HiResCAM whose products are rectified one by one.

Gildenblat et al., pytorch-grad-cam, `GradCAMElementWise`. Evidence against the class in one
channel does not reduce the evidence of another.
"""

from camdrift.explain.methods import library
from camdrift.models.tensors import Activations, Heatmaps

NAME = "GradCAMElementWise"


def maps(activations: Activations, gradients: Activations) -> Heatmaps:
    """Returns the sum over channels of relu of gradient times activation."""
    return library.from_arrays(NAME)(activations, gradients)
