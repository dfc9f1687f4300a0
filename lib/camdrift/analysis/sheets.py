"""Sheets: the maps of one image at all layers, side by side."""

from camdrift.analysis.drawing import Figure, coloured, panel
from camdrift.analysis.results import Example


def maps_of(example: Example, name: str, title: str, caption: str) -> Figure:
    """Returns a figure of one image's maps, a row for each variant, a column for each layer."""
    size = example.pictures.shape[1:3]
    rows = [
        [picture, *(coloured(layer[i], size) for layer in example.maps)]
        for i, picture in enumerate(example.pictures)
    ]
    return panel(
        name,
        title,
        caption,
        rows,
        ["image", *example.layers],
        example.labels,
        x="conv layer (block-conv)",
        wrap=True,
    )
