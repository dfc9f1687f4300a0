"""Torch tensors by name, for signatures, as `camdrift.storage.arrays` names those of NumPy."""

from jaxtyping import Bool, Float, Inexact, Int, Num
from torch import Tensor

# RGB or grey images in [0, 1], or changes to them.
Pixels = Float[Tensor, "n 3 height width"] | Float[Tensor, "n 1 height width"]
Inputs = Inexact[Tensor, "n _ _ _"]  # of a network: images of any channels, resized, normalised
Labels = Int[Tensor, "n"]  # one class an image
Logits = Float[Tensor, "n classes"]  # before the softmax
Activations = Float[Tensor, "n channels h w"]  # the tensor of a layer, or its gradient
Heatmaps = Float[Tensor, "n h w"]  # maps of one layer
PerImage = Num[Tensor, "n"]  # one number an image
Mask = Bool[Tensor, "n"]  # whether something holds, for each image
