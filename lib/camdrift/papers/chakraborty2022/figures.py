"""Figures of networks under transferred attacks: accuracy, PSNR, MOD, VID, and maps to look at.

A function is named as its figure: `figure_3` draws `chakraborty_figure_3`, which imitates the
paper's; the others are the study's own.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

from camdrift.analysis.drawing import Figure, coloured, panel
from camdrift.analysis.results import Tables
from camdrift.papers.chakraborty2022.comparison import PLAIN, PREPROCESSED, Comparison
from camdrift.scores.resizing import enlarged
from camdrift.settings import MEAN
from camdrift.storage import (
    OWN,
    OWN_ATTACK,
    POLICIES,
    TRANSFERRED,
    TRANSFERRED_NOISE,
    UNRELATED,
    Transferred,
)

COLUMNS = 20  # of layers in a panel
MADE = {"own": "made on itself", "transferred": "transferred", "noise": "noise of its size"}
ARMS = {PLAIN: "", PREPROCESSED: ", preprocessed"}
EXPLAINED = {"given": "the class that the set gives", "own_top1": "the image's own top class"}
LAST = "Last conv layer at the input's size"


def by_name(made: Tables, *, explains: str) -> dict[str, Callable[[], Figure]]:
    """Returns how each figure that rests on tables alone is drawn, by its name.

    Args:
        made: the tables.
        explains: the class that maps explain.
    """
    arms = {PLAIN: ("chakraborty_table_1", table_1), PREPROCESSED: ("chakraborty_table_2", table_2)}
    found: dict[str, Callable[[], Figure]] = {
        name: partial(table, made)
        for name, table in (arms[arm] for arm in made["networks"]["preprocessing"].unique())
    }
    found |= {
        "chakraborty_figure_3": partial(figure_3, made),
        "chakraborty_table_3": partial(table_3, made, explains),
        "mod_under_own_attack": partial(mod_under_own_attack, made, explains),
        "chakraborty_figure_4_nissim": partial(figure_4_nissim, made, explains),
        "chakraborty_figure_4_vid": partial(figure_4_vid, made, explains),
        "accuracy_lost_by_source": partial(accuracy_lost_by_source, made),
        "accuracy_lost_by_mod": partial(accuracy_lost_by_mod, made, explains),
        "mod_by_class_kept": partial(mod_by_class_kept, made, explains),
        "mod_by_depth": partial(mod_by_depth, made, explains),
    }
    if "controls" in made:  # results of version 0.1 have none
        found["mod_of_controls"] = partial(mod_of_controls, made, explains)
    if len(made["pairs"]):
        found["accuracy_gain_of_preprocessing"] = partial(accuracy_gain_of_preprocessing, made)
    return found


def study_figures(made: Tables, *, explains: str) -> list[Figure]:
    """Returns the figures that rest on a study's tables alone; see `by_name`."""
    return [draw() for draw in by_name(made, explains=explains).values()]


def table_1(made: Tables) -> Figure:
    """Returns accuracy under the transferred attack as lines, networks without preprocessing."""
    return _accuracy(made, PLAIN, "chakraborty_table_1")


def table_2(made: Tables) -> Figure:
    """Returns accuracy under the transferred attack as lines, networks with preprocessing."""
    return _accuracy(made, PREPROCESSED, "chakraborty_table_2")


def _accuracy(made: Tables, arm: str, name: str) -> Figure:
    rows = made["accuracy"]
    rows = rows[(rows["preprocessing"] == arm) & rows["attack"].isin(["clean", "transferred"])]
    rows = rows[rows["range"] == rows["range"].iloc[0]]
    table = rows.rename(columns={"network": "series", "eps": "x", "accuracy": "y"})
    return Figure(
        name, f"Accuracy under the transferred attack{ARMS[arm]}",
        "Share of test images right at each eps; on the network that the attack was made on it is "
        "its own. Whiskers: Wilson intervals.",
        "lines", _lines(table), "eps, largest change of a pixel value", "share right", (0, 1.02),
    )  # fmt: skip


def figure_3(made: Tables) -> Figure:
    """Returns PSNR by eps, measured, and what nothing clipped would give."""
    rows = made["psnr"]
    rows = rows[(rows["preprocessing"] == PLAIN) & (rows["range"] == rows["range"].iloc[0])]
    parts = [
        part.assign(series=MADE[str(kind)], y=part["psnr"])
        for kind, part in rows.groupby("attack", sort=False)
    ]
    first = rows.drop_duplicates("eps")
    parts.append(first.assign(series="+-eps, not clipped", y=first["unclipped"]))
    table = pd.concat(parts).rename(columns={"eps": "x"})[["series", "x", "y"]]
    return Figure(
        "chakraborty_figure_3", "How visible the changes are",
        "Peak signal-to-noise ratio of attacked test images, mean; pixels in [0, 1], clipped. "
        "Lower is easier to see.",
        "lines", table, "eps, largest change of a pixel value", "PSNR, dB",
    )  # fmt: skip


def table_3(made: Tables, explains: str) -> Figure:
    """Returns MOD by eps as lines, network by network, attack transferred."""
    return _mod(made, TRANSFERRED, explains, "chakraborty_table_3")


def mod_under_own_attack(made: Tables, explains: str) -> Figure:
    """Returns MOD by eps, network by network, attack made on each."""
    return _mod(made, OWN_ATTACK, explains, "mod_under_own_attack")


def _mod(made: Tables, attack: str, explains: str, name: str) -> Figure:
    rows = made["mod"]
    rows = rows[(rows["attack"] == attack) & (rows["explains"] == explains)]
    rows = rows[(rows["group"] == "all") & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["network"] != MEAN]
    table = rows.rename(columns={"network": "series", "eps": "x", "mod": "y"})
    return Figure(
        name, f"How far maps shift, attack {MADE[attack]}",
        f"{LAST}, maps of {EXPLAINED[explains]}: mean (1 - SSIM) / 2 to the clean image's map; 0 "
        "is no shift, pairs with an empty map are left out. Whiskers: intervals by source picture.",
        "lines", _lines(table), "eps, largest change of a pixel value", "MOD",
    )  # fmt: skip


def figure_4_nissim(made: Tables, explains: str) -> Figure:
    """Returns figure 4 read as NISSIM of single images at each eps."""
    return _spread(made, "nissim", explains)


def figure_4_vid(made: Tables, explains: str) -> Figure:
    """Returns figure 4 read as VID of single images."""
    return _spread(made, "vid", explains)


def _spread(made: Tables, of: str, explains: str) -> Figure:
    rows = made[of]
    rows = rows[(rows["attack"] == TRANSFERRED) & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["explains"] == explains]
    if of == "vid":
        rows = rows[rows["levels"] == "eps above 0"]
        series, x = TRANSFERRED, rows["network"]
        title, y = "How much an image's shift differs from eps to eps", "VID of an image"
    else:
        series, x = rows["network"], rows["eps"].map("{:g}".format)
        title, y = "How far maps of single images shift", "NISSIM of an image"
    table = rows.assign(series=series, x=x)
    table = table[["series", "x", "low", "q1", "median", "q3", "high"]].dropna()
    return Figure(
        f"chakraborty_figure_4_{of}", f"{title}, attack transferred",
        f"{LAST}, maps of {EXPLAINED[explains]}. Boxes: median and quartiles of the test images; "
        "whiskers: 5 and 95 %.",
        "boxes", table, "network" if of == "vid" else "eps, largest change of a pixel value", y,
    )  # fmt: skip


def accuracy_lost_by_source(made: Tables) -> Figure:
    """Returns accuracy lost at the largest eps by network that the attack was made on and tried."""
    rows = made["matrix"]
    rows = rows[(rows["preprocessing"] == PLAIN) & (rows["eps"] == rows["eps"].max())]
    table = rows.rename(columns={"made_on": "series", "network": "x", "lost": "y"})
    return Figure(
        "accuracy_lost_by_source", "Accuracy lost, by the network that the attack was made on",
        f"At eps {rows['eps'].max():g}: share right on clean images minus that under the attack. "
        "On the diagonal a network meets its own.",
        "matrix", table[["series", "x", "y"]], "tried on", "made on",
    )  # fmt: skip


def accuracy_lost_by_mod(made: Tables, explains: str) -> Figure:
    """Returns accuracy lost against MOD, a point for each network and eps."""
    reached = made["accuracy"]
    reached = reached[reached["range"] == reached["range"].iloc[0]]
    clean = reached[reached["attack"] == "clean"].set_index(["network", "preprocessing"])
    keys = ["network", "preprocessing", "attack", "eps"]
    rows = made["mod"][made["mod"]["explains"] == explains]
    rows = rows[(rows["group"] == "all") & (rows["preprocessing"] == PLAIN)]
    rows = rows.merge(reached[[*keys, "accuracy"]], on=keys)
    before = clean["accuracy"].loc[list(zip(rows["network"], rows["preprocessing"], strict=True))]
    rows["y"] = before.to_numpy() - rows["accuracy"]
    named = {TRANSFERRED: rows["network"], OWN_ATTACK: "any, attack made on itself"}
    parts = [
        part.assign(series=named[str(kind)])
        for kind, part in rows.groupby("attack", sort=False)
        if kind in named
    ]
    table = pd.concat(sorted(parts, key=lambda part: part["attack"].iloc[0]))
    table = table.rename(columns={"mod": "x"})[["series", "x", "y"]].dropna()
    return Figure(
        "accuracy_lost_by_mod", "Accuracy lost against shift",
        "A point for each network and eps, attack transferred, and of attacks made on the network "
        f"itself. {LAST}, maps of {EXPLAINED[explains]}.",
        "points", table, "MOD", "accuracy lost since clean",
    )  # fmt: skip


def mod_by_class_kept(made: Tables, explains: str) -> Figure:
    """Returns MOD at the largest eps of images that keep their class, and of those that do not."""
    rows = made["mod"]
    rows = rows[(rows["explains"] == explains) & (rows["eps"] == rows["eps"].max())]
    rows = rows[(rows["preprocessing"] == PLAIN) & (rows["network"] != MEAN)]
    shown = {
        (TRANSFERRED, "class kept"): "class kept",
        (TRANSFERRED, "class lost"): "class lost",
        (TRANSFERRED_NOISE, "class kept"): "class kept, noise of that size",
    }
    table = pd.concat(
        [
            rows[(rows["attack"] == kind) & (rows["group"] == group)].assign(series=series)
            for (kind, group), series in shown.items()
        ]
    )
    return Figure(
        "mod_by_class_kept", "Shift of maps, class kept or lost",
        f"Transferred attack at its largest eps, and noise of its size. {LAST}, maps of "
        f"{EXPLAINED[explains]}. Whiskers: intervals by source picture.",
        "bars", _lines(table.rename(columns={"network": "x", "mod": "y"})), "network", "MOD",
    )  # fmt: skip


def mod_of_controls(made: Tables, explains: str) -> Figure:
    """Returns MOD at the largest eps under the transferred attack, its noise and its controls."""
    rows = made["controls"]
    rows = rows[(rows["explains"] == explains) & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["attack"].isin([TRANSFERRED, "none"])]
    names = {"none": "the attack", UNRELATED: "maps of other pictures"}
    series = [names.get(kind, kind.replace("_", "-")) for kind in rows["control"]]
    table = rows.assign(series=series).rename(columns={"network": "x", "mod": "y"})
    return Figure(
        "mod_of_controls", "Shift of maps under the attack, its noise and its controls",
        "Transferred attack at its largest eps, noise of its size, and the perturbation "
        f"rearranged to the same size; beside clean maps of different pictures. {LAST}, maps of "
        f"{EXPLAINED[explains]}. Whiskers: intervals by source picture.",
        "bars", _lines(table), "network", "MOD",
    )  # fmt: skip


def mod_by_depth(made: Tables, explains: str) -> Figure:
    """Returns MOD by relative depth, at each layer's own size."""
    rows = made["layers"]
    rows = rows[(rows["attack"] == TRANSFERRED) & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["explains"] == explains]
    rows = rows.assign(x=rows["depth"] / rows.groupby("network")["depth"].transform("max"))
    table = rows.rename(columns={"network": "series", "mod": "y"})[["series", "x", "y"]]
    return Figure(
        "mod_by_depth", "Shift of maps by depth, attack transferred",
        "At the largest eps, each map at its layer's own size; layers too small for a window of "
        f"SSIM (3 px) are left out. Maps of {EXPLAINED[explains]}.",
        "lines", table.dropna(), "relative depth (1: last map)", "MOD",
    )  # fmt: skip


def accuracy_gain_of_preprocessing(made: Tables) -> Figure:
    """Returns accuracy with preprocessing minus without, on the same images."""
    table = made["pairs"].rename(columns={"network": "series", "eps": "x", "difference": "y"})
    return Figure(
        "accuracy_gain_of_preprocessing",
        "Does preprocessing help? The same images, with minus without",
        "Difference of the share right under the transferred attack, each arm with networks of "
        "its own and an attack of its own. Whiskers: intervals by source picture.",
        "lines", _lines(table), "eps, largest change of a pixel value", "difference of share right",
    )  # fmt: skip


def _lines(table: pd.DataFrame) -> pd.DataFrame:
    return table[["series", "x", "y", "low", "high"]].dropna(subset="y")


def pictures(networks: Sequence[str], *, transferred: str) -> dict[str, tuple[str, str]]:
    """Returns title and caption of the figures that hold pictures, which tables do not.

    Args:
        networks: their names, in order.
        transferred: the one that the transferred attack was made on.
    """
    last = "Last conv layer, enlarged, yellow is strong."
    found = {
        "chakraborty_figure_1": (
            "Maps shift where the class is kept",
            "Transferred attack, the largest eps at which this is so for one of the images to "
            "look at: clean image, map of its top class, attacked image, map of its top class. "
            f"{last}",
        ),
        "chakraborty_figure_2": (
            "Maps where the attack changes the class",
            "Transferred attack, the least eps at which this is so for one of the images to look "
            f"at: clean image, map of its top class, attacked image, map of its top class. {last}",
        ),
        "chakraborty_figure_5": (
            "One image under the transferred attack, on all networks",
            f"The attack was made on {transferred}. Maps of each picture's top class. {last}",
        ),
    }
    for number, network in enumerate(networks, 6):
        found[f"chakraborty_figure_{number}"] = (
            f"Every layer of {network}, attack made on itself",
            f"Maps of one image's top class at all layers, in forward order, {COLUMNS} in a row; "
            "below each other the clean image and each eps. Each map is divided by its maximum: "
            "yellow is strong.",
        )
    return found


def panels(found: Comparison) -> list[Figure]:
    """Returns figures 1 and 2, of an image whose class is kept and of one whose class is lost, 5,
    of one image on all networks, and 6 and on, of all layers of each network.

    Maps are of the image's own top class, as in the paper's examples.
    """  # noqa: D205
    texts = pictures(list(found.networks()), transferred=found.plan.transferred)
    drawn = [figure_1(found, texts), figure_2(found, texts), figure_5(found, texts)]
    return [figure for figure in drawn if figure is not None] + figures_6_and_on(found, texts)


Texts = Mapping[str, tuple[str, str]]


def figure_1(found: Comparison, texts: Texts) -> Figure | None:
    """Returns maps that shift where the class is kept; None where none is."""
    return _examples(found, "chakraborty_figure_1", texts, kept=True)


def figure_2(found: Comparison, texts: Texts) -> Figure | None:
    """Returns maps where the attack changes the class; None where it changes none."""
    return _examples(found, "chakraborty_figure_2", texts, kept=False)


def _examples(found: Comparison, name: str, texts: Texts, *, kept: bool) -> Figure | None:
    tiles, labels = [], []
    for network, tried in found.networks().items():
        row = _example(tried.parts[0], found, kept=kept)
        if row is not None:
            tiles.append(row[0])
            labels.append(f"{network}\n{row[1]}")
    columns = ["clean", "map", "attacked", "map"]
    return panel(name, *texts[name], tiles, columns, labels) if tiles else None


def figure_5(found: Comparison, texts: Texts) -> Figure:
    """Returns one image under the transferred attack, and its maps on all networks."""
    networks = found.networks()
    parts = [tried.parts[0] for tried in networks.values()]
    first, chosen = parts[0], _right(parts)
    places = _places(first, TRANSFERRED)
    side = first.pictures.shape[2]
    columns = ["clean", *(f"eps {eps:g}" for eps in found.plan.eps)]
    tiles = [[first.pictures[chosen, i] for i in places]]
    tiles += [[_last(part, chosen, i, side) for i in places] for part in parts]
    name = "chakraborty_figure_5"
    return panel(name, *texts[name], tiles, columns, ["image", *networks])


def figures_6_and_on(found: Comparison, texts: Texts) -> list[Figure]:
    """Returns the maps of all layers, a figure a network: 6 to 10 in the paper."""
    return [
        _layers(tried.parts[0], found, name, texts)
        for name, tried in (
            (f"chakraborty_figure_{number}", tried)
            for number, tried in enumerate(found.networks().values(), 6)
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
        kept = part.shown["image"]
        right += top.loc[kept].to_numpy() == labels.loc[kept].to_numpy()
    return int(right.argmax())


def _last(part: Transferred, image: int, variant: int, size: int) -> np.ndarray:
    """Returns the picture of a map of the last layer, enlarged as it is compared."""
    return coloured(enlarged(layer(part, image, variant, -1)[None], size=size)[0], size)


def _example(
    part: Transferred, found: Comparison, *, kept: bool
) -> tuple[list[np.ndarray], str] | None:  # fmt: skip
    """Returns the tiles of a kept image that is right clean, and keeps its class or loses it."""
    rows = part.outcomes[part.outcomes["range"] == found.of]
    top = rows.set_index(["attack", "eps", "image"])["prediction"]
    facts = part.images.set_index("image")
    names = facts.drop_duplicates("label").set_index("label")["class_name"].to_dict()
    side = part.pictures.shape[2]
    steps = list(zip(found.plan.eps, _places(part, TRANSFERRED)[1:], strict=True))
    for eps, variant in reversed(steps) if kept else steps:
        for i, image in enumerate(part.shown["image"]):
            before, after = top[OWN_ATTACK, 0.0, image], top[TRANSFERRED, eps, image]
            if before != facts.loc[image, "label"] or (before == after) != kept:
                continue
            maps = [_last(part, i, v, side) for v in (0, variant)]
            tiles = [part.pictures[i, 0], maps[0], part.pictures[i, variant], maps[1]]
            text = "" if kept else f"\n{names.get(before, before)} to {names.get(after, after)}"
            return tiles, f"eps {eps:g}{text}"
    return None


def _layers(part: Transferred, found: Comparison, name: str, texts: Texts) -> Figure:
    """Returns the maps of all layers of an image under the network's own attack."""
    places, chosen = _places(part, OWN_ATTACK), _right([part])
    count, side = len(part.layers), 32
    blank = np.full((side, side, 3), 255, dtype=np.uint8)
    tiles, labels = [], []
    for start in range(0, count, COLUMNS):
        stop = min(count, start + COLUMNS)
        for variant, eps in zip(places, [0.0, *found.plan.eps], strict=True):
            row = [coloured(layer(part, chosen, variant, i), side) for i in range(start, stop)]
            tiles.append(row + [blank] * (min(COLUMNS, count) - len(row)))
            first = f"{start + 1}-{stop}, " if variant == 0 else ""
            labels.append(f"{first}{f'eps {eps:g}' if eps else 'clean'}")
    columns = [str(i + 1) for i in range(min(COLUMNS, count))]
    return panel(name, *texts[name], tiles, columns, labels, x="layer in the row")
