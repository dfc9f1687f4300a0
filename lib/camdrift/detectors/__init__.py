"""Detectors, one file a detector: does an image look attacked?

Every file in this folder that has a function `readings` is a detector, and tried where
`detection.detectors` of params.yaml names it. It has:

- `Settings`: a pydantic section, what params.yaml holds under the file's name;
- `measure(images, settings)`: the feature, arrays (n,) by name, of each image on its own;
- `passes(settings)`: forward passes of the model that an image costs;
- `readings(settings)`: fresh detectors by their names in tables, one or several that read the same
  feature, see `detector`;
- `surrogate(detector, model, settings)`: the objective of the adaptive attack on a fitted detector,
  its score or a stand-in that has a gradient by the pixels; without it there is no such attack.

And, where these are not what is said here: `LAYERS`, names of those of its settings that are layers
(none); `STREAM`, the name of the random numbers that it draws (the file's own); `ONE_SURROGATE`,
whether one adaptive attack serves all its readings (each has its own).

Reports read detectors without torch: files import it, and what imports it, within functions.
"""
