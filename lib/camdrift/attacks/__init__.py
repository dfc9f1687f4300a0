"""Attacks: one file an attack, each with a function `perturb`.

`perturb(model, pixels, labels, *, generators, **settings) -> Perturbation` is batched, takes one
random generator an image, and leads away from `labels`. It may return anything of the images'
shape: the caller (`stages/attack.py`) clips, measures and judges, for every attack alike.
"""
