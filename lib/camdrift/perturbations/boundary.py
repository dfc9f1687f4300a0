"""The decision boundary along a perturbation: the part of it with which the prediction changes."""

from collections.abc import Callable

import pandas as pd
import torch

from camdrift.models import tensors


def crossed(
    model: Callable[[tensors.Pixels], tensors.Logits],
    clean: tensors.Pixels,
    change: tensors.Pixels,
    *,
    bisections: int,
) -> pd.DataFrame:
    """Returns where each image's prediction changes along its perturbation.

    Two parts of the perturbation enclose a change of the prediction: below, it is the clean
    image's; above, it is not. They start at 0 and 1, and each bisection halves their distance. With
    an attack of one size above and one below, drift by a change of class can be told from drift by
    a larger change of pixels.

    Args:
        model: the model whose prediction changes.
        clean: the images, in [0, 1].
        change: the perturbations, not clipped.
        bisections: their number; the two parts then differ by 2 ** -bisections.

    Returns:
        A row an image: `below`, `above`, factors of the perturbation in [0, 1], and `flipped`:
        whether the whole perturbation changes the prediction; where not, the two are 0 and 1.
    """

    def flips(rows: tensors.Tensor, part: tensors.Tensor) -> tensors.Tensor:
        pixels = clean[rows] + part.view(-1, 1, 1, 1) * change[rows]
        return model(pixels.clamp(0, 1)).argmax(1) != predictions[rows]

    below, above = torch.zeros(len(clean)), torch.ones(len(clean))
    with torch.no_grad():
        predictions = model(clean).argmax(1)
        flipped = flips(torch.arange(len(clean)), above)
        rows = flipped.nonzero().flatten()
        for _ in range(bisections if len(rows) else 0):
            middle = (below[rows] + above[rows]) / 2
            now = flips(rows, middle)
            above[rows] = torch.where(now, middle, above[rows])
            below[rows] = torch.where(now, below[rows], middle)
    return pd.DataFrame(
        {"below": below.numpy(), "above": above.numpy(), "flipped": flipped.numpy()}
    )
