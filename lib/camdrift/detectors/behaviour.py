"""Behaviour deviation: how far an image's map lies from that of the image cleaned by PCA.

tan2023, section III-D, steps 1-4: clean the image, take what that removed for noise, draw noisy
copies of the cleaned image that are statistically similar, and compare the drift of the image's
map with the distribution of the copies' drift. Step 5, the decision, is the detector's.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from camdrift.explain.methods import grad_cam
from camdrift.models.model import Model


def cleaned(pixels: Tensor, *, variance: float) -> Tensor:
    """Returns images rebuilt from the components that explain a share of their variance.

    Each channel on its own, rows of pixels as samples; as many components as
    `sklearn.decomposition.PCA(n_components=variance)` keeps. Not clipped. A constant channel has
    no variance and stays as it is.

    Args:
        pixels: (n, 3, h, w).
        variance: share that is kept, in (0, 1).
    """
    values = pixels.double()
    mean = values.mean(dim=2, keepdim=True)
    u, s, v = torch.linalg.svd(values - mean, full_matrices=False)
    explained = s.square().cumsum(-1)
    total = explained[..., -1:]
    kept = (explained <= variance * total).sum(-1, keepdim=True) + 1
    s = torch.where(torch.arange(s.shape[-1]) < kept, s, 0.0)
    return (mean + u * s[..., None, :] @ v).float()


def residual(pixels: Tensor, *, variance: float) -> Tensor:
    """Returns the L2 norm of what cleaning removes: (n,), in pixel values."""
    return (pixels - cleaned(pixels, variance=variance)).flatten(1).norm(dim=1)


def copies(
    pixels: Tensor, clean: Tensor, generators: Sequence[np.random.Generator], *, count: int
) -> Iterator[Tensor]:
    """Yields `count` noisy copies (3, h, w) of each cleaned image, image by image.

    The noise is N(mean, std) of what cleaning removed, one mean and one standard deviation an
    image (renkhoff2022, equation 2). Not clipped.
    """
    for image, base, generator in zip(pixels, clean, generators, strict=True):
        noise = (image - base).double()
        mean, spread = float(noise.mean()), float(noise.std(correction=0))
        for _ in range(count):
            # In place and by one thread: so small an array is not worth waking others for.
            draw = generator.standard_normal(tuple(base.shape), dtype=np.float32)
            draw *= np.float32(spread)
            draw += np.float32(mean)
            draw += base.numpy()
            yield torch.from_numpy(draw)


def maps(
    model: Model, probe: Callable[[Tensor], tuple[Tensor, Tensor]], images: Iterator[Tensor]
) -> Tensor:
    """Returns the Grad-CAM of a stream of images for their own top class: (n, h, w).

    Each image costs a forward and a backward down to the probed layer, no further; a micro-batch
    of the stream is in memory at a time.
    """
    parts = []
    while group := list(islice(images, model.micro_batch)):
        ((batch, rows),) = model.batches(torch.stack(group))
        logits, activations = probe(batch)
        top = logits.gather(1, logits.argmax(1, keepdim=True)).sum()
        (gradients,) = torch.autograd.grad(top, activations)
        found = grad_cam.maps(activations.detach(), gradients)[:rows]
        parts.append(found.to(batch.device))
    return torch.cat(parts)


def similarity(first: Tensor, second: Tensor) -> Tensor:
    """Returns the cosine of maps (..., h, w) at their own size, in [0, 1].

    A map without evidence is defined, so that no image is left undecided: two empty maps are
    alike (1), an empty one and another are not (0).
    """
    a, b = first.flatten(-2), second.flatten(-2)
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    both_empty = (a.norm(dim=-1) == 0) & (b.norm(dim=-1) == 0)
    cosine = (a * b).sum(-1) / torch.where(norms > 0, norms, 1.0)
    return torch.where(both_empty, 1.0, cosine.clamp(0, 1))


def measure(
    model: Model,
    pixels: Tensor,
    generators: Sequence[np.random.Generator],
    *,
    variance: float,
    count: int,
    place: int,
) -> dict[str, np.ndarray]:
    """Returns the behaviour of each image: arrays (n,) by name.

    similarity: of the image's map to that of the cleaned image, in [0, 1].
    copies_median, copies_quantile, copies_mean, copies_std: of the copies' similarity to it; the
        quantile is that of 5 %.
    copies_below: share of copies that are no more similar than the image.

    Args:
        model: the model under attack.
        pixels: (n, 3, h, w), in [0, 1].
        generators: one an image.
        variance: share of the variance that cleaning keeps.
        count: of the noisy copies; the paper asks for 50 or more.
        place: of the probed layer among the model's maps, from 0, or from the end if negative.
    """
    clean = cleaned(pixels, variance=variance)
    probe = model.probe(place)

    def stream() -> Iterator[Tensor]:
        yield from clean
        yield from pixels
        yield from copies(pixels, clean, generators, count=count)

    found = maps(model, probe, stream())
    n = len(pixels)
    base, own, rest = found[:n], found[n : 2 * n], found[2 * n :].unflatten(0, (n, count))
    mine = similarity(own, base)
    drawn = similarity(rest, base[:, None]).double()
    return {
        "similarity": mine.numpy(),
        "copies_median": drawn.quantile(0.5, dim=1).numpy(),
        "copies_quantile": drawn.quantile(0.05, dim=1).numpy(),
        "copies_mean": drawn.mean(1).numpy(),
        "copies_std": drawn.std(1, correction=0).numpy(),
        "copies_below": (drawn <= mine[:, None]).double().mean(1).numpy(),
    }
