"""Element-wise Grad-CAM, of pytorch-grad-cam: HiResCAM whose products are rectified one by one.

Gildenblat et al., pytorch-grad-cam, `GradCAMElementWise`. Evidence against the class in one
channel does not reduce the evidence of another.
"""

from torch import Tensor

from camdrift.explain.methods import library

NAME = "GradCAMElementWise"


def maps(activations: Tensor, gradients: Tensor) -> Tensor:
    """Returns the sum over channels of relu of gradient times activation."""
    return library.from_arrays(NAME)(activations, gradients)
