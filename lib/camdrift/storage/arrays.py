"""NumPy arrays by name, for signatures; `camdrift.models.tensors` names those of torch.

n counts images. A name that stands twice in a signature has the same n, and the same sides, in both
places: an image's are `height` and `width`, a map's, which may be another size, `h` and `w`.
"""

import numpy as np
from jaxtyping import Bool, Float, Num, UInt8

# RGB or grey images as files hold them, 0-255.
Images8 = UInt8[np.ndarray, "n height width 3"] | UInt8[np.ndarray, "n height width 1"]
# RGB or grey images in [0, 1], or changes to them.
Pixels = Float[np.ndarray, "n 3 height width"] | Float[np.ndarray, "n 1 height width"]
# The last of an attack's steps, without rows where the attack is one step.
NoStep = Float[np.ndarray, "0 3 height width"] | Float[np.ndarray, "0 1 height width"]
LastStep = Pixels | NoStep
Heatmaps = Float[np.ndarray, "n h w"]  # maps of one layer
PerImage = Num[np.ndarray, "n"]  # one number an image
Mask = Bool[np.ndarray, "n"]  # whether something holds, for each image
