"""Logits: those of classes, and that of the top class."""

import torch
from torch import Tensor

from camdrift.models.tensors import Logits, PerImage


def class_logits(logits: Tensor) -> Logits:
    """Returns logits of two classes at least: (n, 1) is read as -z/2 and z/2.

    Their softmax is the sigmoid of z, and their cross-entropy the binary one.
    """
    return logits if logits.shape[1] > 1 else torch.cat([-logits, logits], 1) / 2


def probabilities(outputs: Logits) -> Logits:
    """Returns the probabilities of classes: the softmax of logits.

    Outputs that are not below 0 and add up to 1 are of a network that ends in a softmax, and are
    returned as they are.
    """
    adds_up = (outputs.detach().sum(1) - 1).abs().max() < 1e-4
    return outputs if adds_up and outputs.detach().min() >= 0 else outputs.softmax(1)


def top_logit(logits: Logits) -> PerImage:
    """Returns the logit of each image's top class, with its gradient."""
    return logits.gather(1, logits.argmax(1, keepdim=True))[:, 0]
