"""Figures of networks under transferred attacks that need tables alone: accuracy, PSNR, MOD, VID.

A function is named as its figure: `figure_3` draws `chakraborty_figure_3`, which imitates the
paper's; the others are the study's own. Figures with pictures are in `panels`.
"""

from collections.abc import Callable
from functools import partial

import pandas as pd

from camdrift.analysis.drawing import Figure
from camdrift.analysis.results import Tables
from camdrift.papers.chakraborty2022.comparison import PLAIN, PREPROCESSED
from camdrift.settings import MEAN
from camdrift.storage import CLEAN, OWN_ATTACK, TRANSFERRED, TRANSFERRED_NOISE, UNRELATED

ATTACKS = {"own": "made on itself", "transferred": "transferred", "noise": "noise of its size"}
ARMS = {PLAIN: "", PREPROCESSED: ", preprocessed"}
EXPLAINED = {"given": "the class that the set gives", "own_top1": "the image's own top class"}
# The same in titles.
SHORT = {"given": "given class", "own_top1": "own top class"}
LAST = "Last conv layer at the input's size"


def by_name(tables: Tables, *, explains: str) -> dict[str, Callable[[], Figure]]:
    """Returns how each figure that rests on tables alone is drawn, by its name.

    Args:
        tables: of a study.
        explains: the class that maps explain.
    """
    arms = {PLAIN: ("chakraborty_table_1", table_1), PREPROCESSED: ("chakraborty_table_2", table_2)}
    figures: dict[str, Callable[[], Figure]] = {
        name: partial(draw, tables)
        for name, draw in (arms[arm] for arm in tables["networks"]["preprocessing"].unique())
    }
    figures |= {
        "chakraborty_figure_3": partial(figure_3, tables),
        "chakraborty_table_3": partial(table_3, tables, explains),
        "mod_under_own_attack": partial(mod_under_own_attack, tables, explains),
        "chakraborty_figure_4_nissim": partial(figure_4_nissim, tables, explains),
        "chakraborty_figure_4_vid": partial(figure_4_vid, tables, explains),
        "accuracy_lost_by_source": partial(accuracy_lost_by_source, tables),
        "accuracy_lost_by_mod": partial(accuracy_lost_by_mod, tables, explains),
        "mod_by_class_kept": partial(mod_by_class_kept, tables, explains),
        "mod_by_depth": partial(mod_by_depth, tables, explains),
    }
    if "controls" in tables:  # results of version 0.1 have none
        figures["mod_of_controls"] = partial(mod_of_controls, tables, explains)
    if len(tables["pairs"]):
        figures["accuracy_gain_of_preprocessing"] = partial(accuracy_gain_of_preprocessing, tables)
    return figures


def study_figures(tables: Tables, *, explains: str) -> list[Figure]:
    """Returns the figures that rest on a study's tables alone; see `by_name`."""
    return [draw() for draw in by_name(tables, explains=explains).values()]


def table_1(tables: Tables) -> Figure:
    """Returns accuracy under the transferred attack as lines, networks without preprocessing."""
    return _accuracy(tables, PLAIN, "chakraborty_table_1")


def table_2(tables: Tables) -> Figure:
    """Returns accuracy under the transferred attack as lines, networks with preprocessing."""
    return _accuracy(tables, PREPROCESSED, "chakraborty_table_2")


def _accuracy(tables: Tables, arm: str, name: str) -> Figure:
    rows = tables["accuracy"]
    rows = rows[(rows["preprocessing"] == arm) & rows["attack"].isin(["clean", "transferred"])]
    rows = rows[rows["range"] == rows["range"].iloc[0]]
    table = rows.rename(columns={"network": "series", "eps": "x", "accuracy": "y"})
    return Figure(
        name, f"Accuracy under the transferred attack{ARMS[arm]}",
        "Share of test images right at each eps; on the network that the attack was made on it is "
        "its own. Whiskers: Wilson intervals.",
        "lines", _lines(table), "eps, largest change of a pixel value", "share right", (0, 1.02),
    )  # fmt: skip


def figure_3(tables: Tables) -> Figure:
    """Returns PSNR by eps, measured, and what nothing clipped would give."""
    rows = tables["psnr"]
    rows = rows[(rows["preprocessing"] == PLAIN) & (rows["range"] == rows["range"].iloc[0])]
    parts = [
        part.assign(series=ATTACKS[str(kind)], y=part["psnr"])
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


def table_3(tables: Tables, explains: str) -> Figure:
    """Returns MOD by eps as lines, network by network, attack transferred."""
    return _mod(tables, TRANSFERRED, explains, "chakraborty_table_3")


def mod_under_own_attack(tables: Tables, explains: str) -> Figure:
    """Returns MOD by eps, network by network, attack made on each."""
    return _mod(tables, OWN_ATTACK, explains, "mod_under_own_attack")


def _mod(tables: Tables, attack: str, explains: str, name: str) -> Figure:
    rows = tables["mod"]
    rows = rows[(rows["attack"] == attack) & (rows["explains"] == explains)]
    rows = rows[(rows["group"] == "all") & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["network"] != MEAN]
    table = rows.rename(columns={"network": "series", "eps": "x", "mod": "y"})
    return Figure(
        name, f"How far maps shift, attack {ATTACKS[attack]} ({SHORT[explains]})",
        f"{LAST}, maps of {EXPLAINED[explains]}: mean (1 - SSIM) / 2 to the clean image's map; 0 "
        "is no shift, pairs with an empty map are left out. Whiskers: intervals by source picture.",
        "lines", _lines(table), "eps, largest change of a pixel value", "MOD",
    )  # fmt: skip


def figure_4_nissim(tables: Tables, explains: str) -> Figure:
    """Returns figure 4 read as NISSIM of single images at each eps."""
    return _spread(tables, "nissim", explains)


def figure_4_vid(tables: Tables, explains: str) -> Figure:
    """Returns figure 4 read as VID of single images."""
    return _spread(tables, "vid", explains)


def _spread(tables: Tables, of: str, explains: str) -> Figure:
    rows = tables[of]
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
        f"chakraborty_figure_4_{of}", f"{title}, attack transferred ({SHORT[explains]})",
        f"{LAST}, maps of {EXPLAINED[explains]}. Boxes: median and quartiles of the test images; "
        "whiskers: 5 and 95 %.",
        "boxes", table, "network" if of == "vid" else "eps, largest change of a pixel value", y,
    )  # fmt: skip


def accuracy_lost_by_source(tables: Tables) -> Figure:
    """Returns accuracy lost at the largest eps by network that the attack was made on and tried."""
    rows = tables["matrix"]
    rows = rows[(rows["preprocessing"] == PLAIN) & (rows["eps"] == rows["eps"].max())]
    table = rows.rename(columns={"made_on": "series", "network": "x", "lost": "y"})
    return Figure(
        "accuracy_lost_by_source", "Accuracy lost, by the network that the attack was made on",
        f"At eps {rows['eps'].max():g}: share right on clean images minus that under the attack. "
        "On the diagonal a network meets its own.",
        "matrix", table[["series", "x", "y"]], "tried on", "made on",
    )  # fmt: skip


def accuracy_lost_by_mod(tables: Tables, explains: str) -> Figure:
    """Returns accuracy lost against MOD, a point for each network and eps."""
    reached = tables["accuracy"]
    reached = reached[reached["range"] == reached["range"].iloc[0]]
    clean = reached[reached["attack"] == "clean"].set_index(["network", "preprocessing"])
    keys = ["network", "preprocessing", "attack", "eps"]
    rows = tables["mod"][tables["mod"]["explains"] == explains]
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
        "accuracy_lost_by_mod", f"Accuracy lost against shift ({SHORT[explains]})",
        "A point for each network and eps, attack transferred, and of attacks made on the network "
        f"itself. {LAST}, maps of {EXPLAINED[explains]}.",
        "points", table, "MOD", "accuracy lost since clean",
    )  # fmt: skip


def mod_by_class_kept(tables: Tables, explains: str) -> Figure:
    """Returns MOD at the largest eps of images that keep their class, and of those that do not."""
    rows = tables["mod"]
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
        "mod_by_class_kept", f"Shift of maps, class kept or lost ({SHORT[explains]})",
        f"Transferred attack at its largest eps, and noise of its size. {LAST}, maps of "
        f"{EXPLAINED[explains]}. Whiskers: intervals by source picture.",
        "bars", _lines(table.rename(columns={"network": "x", "mod": "y"})), "network", "MOD",
    )  # fmt: skip


def mod_of_controls(tables: Tables, explains: str) -> Figure:
    """Returns MOD at the largest eps under the transferred attack, its noise and its controls."""
    rows = tables["controls"]
    rows = rows[(rows["explains"] == explains) & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["attack"].isin([TRANSFERRED, "none"])]
    names = {"none": "the attack", UNRELATED: "maps of other pictures"}
    series = [names.get(kind, kind.replace("_", "-")) for kind in rows["control"]]
    table = rows.assign(series=series).rename(columns={"network": "x", "mod": "y"})
    return Figure(
        "mod_of_controls",
        f"Shift of maps under the attack, its noise and its controls ({SHORT[explains]})",
        "Transferred attack at its largest eps, noise of its size, and the perturbation "
        f"rearranged to the same size; beside clean maps of different pictures. {LAST}, maps of "
        f"{EXPLAINED[explains]}. Whiskers: intervals by source picture.",
        "bars", _lines(table), "network", "MOD",
    )  # fmt: skip


def mod_by_depth(tables: Tables, explains: str) -> Figure:
    """Returns MOD by relative depth, at each layer's own size."""
    rows = tables["layers"]
    rows = rows[(rows["attack"] == TRANSFERRED) & (rows["preprocessing"] == PLAIN)]
    rows = rows[rows["explains"] == explains]
    rows = rows.assign(x=rows["depth"] / rows.groupby("network")["depth"].transform("max"))
    table = rows.rename(columns={"network": "series", "mod": "y"})[["series", "x", "y"]]
    return Figure(
        "mod_by_depth", f"Shift of maps by depth, attack transferred ({SHORT[explains]})",
        "At the largest eps, each map at its layer's own size; layers too small for a window of "
        f"SSIM (3 px) are left out. Maps of {EXPLAINED[explains]}.",
        "lines", table.dropna(), "relative depth (1: last map)", "MOD",
    )  # fmt: skip


def accuracy_gain_of_preprocessing(tables: Tables) -> Figure:
    """Returns accuracy with preprocessing minus without, on the same images, attack and noise."""
    rows = tables["pairs"]
    if "attack" not in rows:  # results of version 0.1 have none
        rows = rows.assign(attack=TRANSFERRED)
    arms = {CLEAN: "", TRANSFERRED: "", TRANSFERRED_NOISE: ", noise of that size"}
    table = rows.assign(series=rows["network"] + rows["attack"].map(arms))
    return Figure(
        "accuracy_gain_of_preprocessing",
        "Does preprocessing help? The same images, with minus without",
        "Difference of the share right under the transferred attack, and under noise of its size; "
        "each arm with networks of its own and an attack of its own. Whiskers: intervals by source "
        "picture.",
        "lines", _lines(table.rename(columns={"eps": "x", "difference": "y"})),
        "eps, largest change of a pixel value", "difference of share right",
    )  # fmt: skip


def _lines(table: pd.DataFrame) -> pd.DataFrame:
    return table[["series", "x", "y", "low", "high"]].dropna(subset="y")
