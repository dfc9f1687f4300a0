"""Panels: figures of networks under transferred attacks that hold images and their maps.

A function is named as its figure: `figure_1` draws `chakraborty_figure_1`, which imitates the
paper's. The stages kept the images, and the maps of every layer.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from camdrift.analysis.drawing import Figure, coloured, panel
from camdrift.papers.chakraborty2022.comparison import Comparison
from camdrift.papers.chakraborty2022.figures import SHORT
from camdrift.scores.resizing import enlarged
from camdrift.storage import OWN, OWN_ATTACK, POLICIES, TRANSFERRED, Transferred

COLUMNS = 20  # of layers in a panel
CLASS = SHORT[OWN]
Texts = Mapping[str, tuple[str, str]]  # title and caption of each figure


def pictures(networks: Sequence[str], *, transferred: str) -> dict[str, tuple[str, str]]:
    """Returns title and caption of the figures that hold pictures, which tables do not.

    Args:
        networks: their names, in order.
        transferred: the one that the transferred attack was made on.
    """
    last = "Last conv layer, enlarged, yellow is strong."
    texts = {
        "chakraborty_figure_1": (
            f"Maps shift where the class is kept ({CLASS})",
            "Transferred attack, the largest eps at which this is so for one of the images to "
            "look at: clean image, map of its top class, attacked image, map of its top class. "
            f"{last}",
        ),
        "chakraborty_figure_2": (
            f"Maps where the attack changes the class ({CLASS})",
            "Transferred attack, the least eps at which this is so for one of the images to look "
            f"at: clean image, map of its top class, attacked image, map of its top class. {last}",
        ),
        "chakraborty_figure_5": (
            f"One image under the transferred attack, on all networks ({CLASS})",
            f"The attack was made on {transferred}. Maps of each picture's top class. {last}",
        ),
    }
    for number, network in enumerate(networks, 6):
        texts[f"chakraborty_figure_{number}"] = (
            f"Every layer of {network}, attack made on itself ({CLASS})",
            "Maps of one image's top class at all layers, to be read as the paper's figures 6 to "
            "10: the first layer at the bottom right, the last at the top left, "
            f"{COLUMNS} in a row; below each other the clean image and each eps. Each map is "
            "divided by its maximum: yellow is strong.",
        )
    return texts


def panels(comparison: Comparison) -> list[Figure]:
    """Returns figures 1 and 2, of an image whose class is kept and of one whose class is lost, 5,
    of one image on all networks, and 6 and on, of all layers of each network.

    Maps are of the image's own top class, as in the paper's examples.
    """  # noqa: D205
    texts = pictures(list(comparison.networks()), transferred=comparison.plan.transferred)
    figures = [draw(comparison, texts) for draw in (figure_1, figure_2, figure_5)]
    drawable = [figure for figure in figures if figure is not None]
    return drawable + figures_6_and_on(comparison, texts)


def figure_1(comparison: Comparison, texts: Texts) -> Figure | None:
    """Returns maps that shift where the class is kept; None where none is."""
    return _examples(comparison, "chakraborty_figure_1", texts, same_class=True)


def figure_2(comparison: Comparison, texts: Texts) -> Figure | None:
    """Returns maps where the attack changes the class; None where it changes none."""
    return _examples(comparison, "chakraborty_figure_2", texts, same_class=False)


def _examples(
    comparison: Comparison, name: str, texts: Texts, *, same_class: bool
) -> Figure | None:
    tiles, labels = [], []
    for network, tried in comparison.networks().items():
        row = _example(tried.parts[0], comparison, same_class=same_class)
        if row is not None:
            tiles.append(row[0])
            labels.append(f"{network}\n{row[1]}")
    columns = ["clean", "map", "attacked", "map"]
    return panel(name, *texts[name], tiles, columns, labels) if tiles else None


def figure_5(comparison: Comparison, texts: Texts) -> Figure:
    """Returns one image under the transferred attack, and its maps on all networks."""
    networks = comparison.networks()
    parts = [tried.parts[0] for tried in networks.values()]
    first, image = parts[0], _right(parts)
    places = _places(first, TRANSFERRED)
    size = first.pictures.shape[2:4]
    columns = ["clean", *(f"eps {eps:g}" for eps in comparison.plan.eps)]
    tiles = [[first.pictures[image, i] for i in places]]
    tiles += [[_last(part, image, i, size) for i in places] for part in parts]
    name = "chakraborty_figure_5"
    return panel(name, *texts[name], tiles, columns, ["image", *networks])


def figures_6_and_on(comparison: Comparison, texts: Texts) -> list[Figure]:
    """Returns the maps of all layers, a figure a network: 6 to 10 in the paper."""
    return [
        _layers(tried.parts[0], comparison, name, texts)
        for name, tried in (
            (f"chakraborty_figure_{number}", tried)
            for number, tried in enumerate(comparison.networks().values(), 6)
        )
        if tried.has(OWN_ATTACK)
    ]


def _places(part: Transferred, attack: str) -> list[int]:
    """Returns the places, among kept maps and pictures, of the clean image and of each eps."""
    return [0, *(1 + i for i in part.variants.index[part.variants["attack"] == attack])]


def layer(part: Transferred, image: int, variant: int, place: int) -> np.ndarray:
    """Returns a kept map of an image's own top class, in [0, 1], by the place of its layer."""
    facts = part.layers.iloc[place]
    flat = part.values[image, variant, POLICIES.index(OWN)]
    end = facts["start"] + facts["height"] * facts["width"]
    shape = (facts["height"], facts["width"])
    return np.asarray(flat[facts["start"] : end], dtype=np.float32).reshape(shape)


def _right(parts: Sequence[Transferred]) -> int:
    """Returns the place of the first kept image that most networks get right when clean."""
    right = np.zeros(len(parts[0].shown))
    for part in parts:
        clean = part.outcomes[(part.outcomes["attack"] == OWN_ATTACK) & (part.outcomes["eps"] == 0)]
        top = clean.drop_duplicates("image").set_index("image")["prediction"]
        labels = part.images.set_index("image")["label"]
        images = part.shown["image"]
        right += top.loc[images].to_numpy() == labels.loc[images].to_numpy()
    return int(right.argmax())


def _last(part: Transferred, image: int, variant: int, size: Sequence[int]) -> np.ndarray:
    """Returns the picture of a map of the last layer, enlarged as it is compared."""
    return coloured(enlarged(layer(part, image, variant, -1)[None], size=size)[0], size)


def _example(
    part: Transferred, comparison: Comparison, *, same_class: bool
) -> tuple[list[np.ndarray], str] | None:  # fmt: skip
    """Returns the tiles of a kept image that is right clean, and keeps its class or loses it."""
    rows = part.outcomes[part.outcomes["range"] == comparison.range]
    top = rows.set_index(["attack", "eps", "image"])["prediction"]
    facts = part.images.set_index("image")
    names = facts.drop_duplicates("label").set_index("label")["class_name"].to_dict()
    size = part.pictures.shape[2:4]
    steps = list(zip(comparison.plan.eps, _places(part, TRANSFERRED)[1:], strict=True))
    for eps, variant in reversed(steps) if same_class else steps:
        for i, image in enumerate(part.shown["image"]):
            before, after = top[OWN_ATTACK, 0.0, image], top[TRANSFERRED, eps, image]
            if before != facts.loc[image, "label"] or (before == after) != same_class:
                continue
            maps = [_last(part, i, v, size) for v in (0, variant)]
            tiles = [part.pictures[i, 0], maps[0], part.pictures[i, variant], maps[1]]
            if same_class:
                return tiles, f"eps {eps:g}"
            flip = f"{names.get(before, before)} to {names.get(after, after)}"
            return tiles, f"eps {eps:g}\n{flip}"
    return None


def _layers(part: Transferred, comparison: Comparison, name: str, texts: Texts) -> Figure:
    """Returns the maps of all layers of an image under the network's own attack.

    From right to left and, `COLUMNS` layers at a time, from the bottom to the top, as the paper has
    them.
    """
    places, image = _places(part, OWN_ATTACK), _right([part])
    count, shape = len(part.layers), part.pictures.shape[2:4]
    columns = min(COLUMNS, count)
    size = [round(32 * side / min(shape)) for side in shape]
    blank = np.full((*size, 3), 255, dtype=np.uint8)
    tiles, labels = [], []
    for start in reversed(range(0, count, COLUMNS)):
        stop = min(count, start + COLUMNS)
        for variant, eps in zip(places, [0.0, *comparison.plan.eps], strict=True):
            row = [coloured(layer(part, image, variant, i), size) for i in range(start, stop)]
            tiles.append([blank] * (columns - len(row)) + row[::-1])
            first = f"{start + 1}-{stop}, " if variant == 0 else ""
            labels.append(f"{first}{f'eps {eps:g}' if eps else 'clean'}")
    numbers = [str(i) for i in range(columns, 0, -1)]
    return panel(name, *texts[name], tiles, numbers, labels, x="layer in the row, from the right")
