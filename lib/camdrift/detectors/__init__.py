"""Detectors, one file a detector: does an image look attacked?

Every file in this folder that has a function `readings` is a detector; it is evaluated if
`detection.detectors` of params.yaml names it. It has:

- `Settings`: a pydantic section, the settings under the file's name in params.yaml;
- `measure(images, settings)`: the feature, arrays (n,) by name, of each image separately;
- `passes(settings)`: the number of forward passes of the model for each image;
- `readings(settings)`: new detectors by their names in tables, one or several that use the same
  feature, see `detector`;
- `surrogate(detector, model, settings)`: the objective of the adaptive attack on a fitted detector,
  its score or a substitute that has a gradient with respect to the pixels; without it there is no
  adaptive attack.

And, with these defaults: `LAYERS`, the names of its settings that are layers (none), of which one
that is `detector.SENSITIVE` becomes the number of the most sensitive layer; `STREAM`, the name of
its stream of random numbers (that of the file); `ONE_SURROGATE`, whether one adaptive
attack serves all its readings (no); `REFERENCE`, whether it compares images with training images
(no): then images have a `reference`, which `surrogate` takes as its last argument.

Reports import detectors without torch: files import torch, and modules that import it, within
functions.
"""
