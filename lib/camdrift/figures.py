"""Figures: a tidy table becomes a `Figure`, and a `Figure` becomes Plotly or a PNG.

The figures of a study follow those of renkhoff2022 by number. Plotly serves the report and the
dashboard; the PNG, for the README and `dvc plots`, is drawn by matplotlib, since Plotly's own
export wants a browser on the machine.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from camdrift import artifacts
from camdrift.results import Example, Tables
from camdrift.tables import PAPERS_RULE

# Okabe and Ito's palette, told apart by people with any colour vision; marks and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#E69F00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot", "solid")
MATPLOTLIB_DASHES = ("-", "--", ":", "-.", (0, (7, 2)), (0, (7, 2, 1, 2)), "-")
MARKS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")
MATPLOTLIB_MARKS = ("o", "s", "D", "^", "x", "P", "*")


@dataclass(frozen=True)
class Figure:
    """What a figure shows, however it is drawn.

    name: of its files and its anchor.
    title: what it shows, in a few words.
    caption: how to read it, in plain sentences.
    kind: 'lines', 'bars', 'boxes', 'matrix' (rows are series) or 'panel'.
    table: columns `series, x, y` and, where known, `low, high`; for boxes `q1, median, q3, low,
        high` in place of `y`; for a panel nothing.
    x, y: labels of the axes, with units.
    y_range: of the y axis, or None.
    log_x: whether the x axis is logarithmic.
    panel: a composed picture and the labels of its columns and rows, for a panel.
    """

    name: str
    title: str
    caption: str
    kind: str
    table: pd.DataFrame
    x: str
    y: str
    y_range: tuple[float, float] | None = None
    log_x: bool = False
    panel: tuple[np.ndarray, list[str], list[str]] | None = None


def of_study(tables: Tables, example: Example, headline: str) -> list[Figure]:
    """Returns the figures of a study: its own, then the paper's, for the headline cell."""
    return [
        square(tables, headline, "own_top1"),
        square(tables, headline, "seed_class"),
        groups(tables, headline),
        drift(tables, headline),
        published(tables, headline),
        coverage_by_arm(tables, headline),
        coverage_by_strength(tables, headline),
        maps(example),
        boxes(tables, headline, "adversarial", "4a"),
        boxes(tables, headline, "noise", "4b"),
        lines(tables, headline, "adversarial", "5a"),
        lines(tables, headline, "noise", "5b"),
        compromised(tables, headline),
        compromised_counts(tables, headline),
    ]


def square(tables: Tables, cell: str, target: str) -> Figure:
    """Returns the study's central figure: drift by attack or noise x flipped or not."""
    rows = tables["square"].query("cell == @cell and target == @target and layer != 'mean'")
    series = {
        ("attack", True): "attack, class flipped",
        ("noise", True): "noise, raised until the class flips",
        ("attack", False): "attack, not flipped",
        ("noise", False): "noise of the same size, not flipped",
    }
    parts = []
    for (arm, flipped), name in series.items():
        part = rows[(rows["arm"] == arm) & (rows["flipped"].astype(bool) == flipped)]
        part = part.rename(columns={"layer": "x", "mean": "y"}).assign(series=name)
        parts.append(part[["series", "x", "y", "low", "high"]])
    seeds = int(rows["images"].max()) if len(rows) else 0
    policy = {
        "own_top1": "each map for its image's own class",
        "seed_class": "every map for the clean image's class",
    }[target]
    return Figure(
        "square_own" if target == "own_top1" else "square_clean",
        f"Drift by attack or noise, class flipped or not: {policy} ({cell})",
        f"1 minus the cosine similarity to the clean map, on the same {seeds} images for all four "
        "lines. An image takes part at the lowest strength at which the attack flips its class, at "
        "the strength below, with noise of that lower size, and with noise raised until it flips "
        "the class, too, which makes it several times as large. Bars are bootstrap intervals, "
        "resampled by source picture. A layer with too many empty maps is left out.",
        "lines",
        pd.concat(parts, ignore_index=True),
        "conv layer (block-conv, input to output)",
        "drift (1 - cosine)",
        (0.0, 1.02),
    )


def groups(tables: Tables, cell: str) -> Figure:
    """Returns excess drift by strength: not flipped, flipped for either class."""
    rows = tables["groups"].query("cell == @cell and variant == 'adversarial' and layer == 'mean'")
    names = {
        "flipped_own_class": "class flipped, each map for its own class",
        "flipped_seed_class": "class flipped, both maps for the clean image's class",
        "not_flipped": "class not flipped",
    }
    parts = [rows[rows["group"] == group].assign(series=name) for group, name in names.items()]
    table = pd.concat(parts, ignore_index=True).drop(columns=["low", "high", "mean"])
    table = table.assign(strength=table["strength"].map(percent)).rename(
        columns={"strength": "x", "excess": "y", "excess_low": "low", "excess_high": "high"}
    )
    return Figure(
        "groups",
        f"Excess drift by strength, class flipped at that strength or not ({cell})",
        "Cosine similarity to the clean map under noise of the same size minus that under attack, "
        "mean over layers and images; 0 means that the attack moves the maps no further than "
        "noise. Which images are flipped is told at each strength anew. Bars are bootstrap "
        "intervals, resampled by source picture.",
        "lines",
        table[["series", "x", "y", "low", "high"]],
        "strength of the attack, of its perturbation",
        "excess drift (difference of cosine)",
    )


def published(tables: Tables, cell: str) -> Figure:
    """Returns figure 5a as the public code would have drawn it, if the cell has that protocol."""
    rows = tables["curves"].query(
        "cell == @cell and protocol == 'as_published' and variant == 'adversarial'"
    )
    table = rows.assign(series=rows["strength"].map(percent)).rename(
        columns={"layer": "x", "mean": "y"}
    )
    return Figure(
        "figure_5a_as_published",
        f"Mean similarity to the clean map by strength, as the public code does it ({cell})",
        "As figure 5a, with all faults of the public code: accumulating strengths, images cut to 8 "
        "bit, jet-coloured maps, softmax for the originals. The paper finds 50 and 100 % almost "
        "identical and 25, 200 and 400 % alike.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "mean cosine similarity",
        (0.0, 1.02),
    )


def drift(tables: Tables, cell: str) -> Figure:
    """Returns excess drift by layer, class flipped or not."""
    series = {
        ("success", "own_top1"): "class flipped, each map for its own class",
        ("success", "seed_class"): "class flipped, both maps for the clean image's class",
        ("failure", "own_top1"): "class not flipped",
    }
    rows = tables["excess"].query("cell == @cell and strength == 1 and layer != 'mean'")
    parts = []
    for (group, target), name in series.items():
        part = rows[(rows["group"] == group) & (rows["target"] == target)]
        part = part.rename(columns={"layer": "x", "mean": "y"}).assign(series=name)
        part.loc[~part["decided"].astype(bool), ["y", "low", "high"]] = np.nan
        parts.append(part[["series", "x", "y", "low", "high"]])
    return Figure(
        "drift",
        f"How much further an attack moves the maps than noise of the same size ({cell})",
        "Each point is the cosine similarity under matched noise minus that under attack, averaged "
        "over images; 0 means that the attack moves the map no further than noise. Bars are "
        "bootstrap intervals, resampled by source picture. The first two lines are the same "
        "attacked images: they differ only in the class that the changed map explains. A layer "
        "with too many empty maps is left out.",
        "lines",
        pd.concat(parts, ignore_index=True),
        "conv layer (block-conv, input to output)",
        "excess drift (difference of cosine)",
    )


def coverage_by_arm(tables: Tables, cell: str) -> Figure:
    """Returns figure 2a: coverage of attack and noise at strength 1."""
    rows = tables["coverage"].query("cell == @cell and strength == 1")
    names = {"attack": "attack, 100 %", "noise": "matched noise, 100 %"}
    table = rows.assign(series=rows["arm"].map(names)).rename(
        columns={"seeds": "x", "coverage": "y"}
    )
    return Figure(
        "figure_2a",
        f"Neuron coverage, attack against noise ({cell})",
        "Share of the network's neurons that at least one image so far has covered, when seeds "
        "come one by one, each with its changed image. The mean over all orders of the seeds.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "seed images",
        f"covered share of {int(rows['neurons'].iloc[0])} neurons",
        (0.0, 1.0),
        log_x=True,
    )


def coverage_by_strength(tables: Tables, cell: str) -> Figure:
    """Returns figure 2b: coverage under attack at each strength."""
    rows = tables["coverage"].query("cell == @cell and arm == 'attack'")
    table = rows.assign(series=rows["strength"].map(percent)).rename(
        columns={"seeds": "x", "coverage": "y"}
    )
    return Figure(
        "figure_2b",
        f"Neuron coverage by strength of the attack ({cell})",
        "As figure 2a, for the attack alone; a line for each multiple of its perturbation.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "seed images",
        f"covered share of {int(rows['neurons'].iloc[0])} neurons",
        (0.0, 1.0),
        log_x=True,
    )


def maps(example: Example) -> Figure:
    """Returns figure 3: the maps of one image, clean, attacked and with noise, layer by layer."""
    size = example.pictures.shape[1]
    gap = max(2, size // 16)
    rows = []
    for i, picture in enumerate(example.pictures):
        tiles = [picture] + [coloured(layer[i], size) for layer in example.maps]
        framed = [np.pad(t, ((0, gap), (0, gap), (0, 0)), constant_values=255) for t in tiles]
        rows.append(np.concatenate(framed, axis=1))
    return Figure(
        "figure_3",
        "Grad-CAM of one attacked image at every conv layer",
        "Left the image itself, then its map at each layer, input to output; bright marks what the "
        "layer's evidence for the predicted class rests on. Each map is divided by its own "
        "maximum. Rows: the clean image, the adversarial, the same amount of noise.",
        "panel",
        pd.DataFrame(columns=["series", "x", "y"]),
        "conv layer (block-conv)",
        "",
        panel=(np.concatenate(rows), ["image", *example.layers], example.labels),
    )


def coloured(layer: np.ndarray, size: int) -> np.ndarray:
    """Returns a map in [0, 1] as a viridis picture, uint8 (size, size, 3), nearest pixels."""
    import matplotlib as mpl

    rows, columns = (np.arange(size) * side // size for side in layer.shape)
    return (mpl.colormaps["viridis"](layer[rows][:, columns])[..., :3] * 255).astype(np.uint8)


def boxes(tables: Tables, cell: str, variant: str, number: str) -> Figure:
    """Returns figure 4a or 4b: similarity by layer, all strengths pooled, successful images."""
    rows = _similarity(tables, cell, variant).query("strength == 0")
    table = rows.rename(columns={"layer": "x"}).assign(series=variant)
    return Figure(
        f"figure_{number}",
        f"Similarity to the clean map by layer, {_arm(variant)} ({cell})",
        "Cosine similarity of each changed map to the clean map of its image, all strengths "
        "pooled, successfully attacked images, each map for its own top class. Box: quartiles and "
        "median; whiskers: furthest value within 1.5 box lengths.",
        "boxes",
        table[["series", "x", "q1", "median", "q3", "low", "high"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "cosine similarity",
        (0.0, 1.02),
    )


def lines(tables: Tables, cell: str, variant: str, number: str) -> Figure:
    """Returns figure 5a or 5b: mean similarity by layer, one line a strength."""
    rows = _similarity(tables, cell, variant).query("strength > 0")
    table = rows.rename(columns={"layer": "x", "mean": "y"})
    table["series"] = table["strength"].map(percent)
    return Figure(
        f"figure_{number}",
        f"Mean similarity to the clean map by strength, {_arm(variant)} ({cell})",
        "Mean cosine similarity of the changed map to the clean map, successfully attacked images, "
        "each map for its own top class; a line for each multiple of the perturbation. 1 means "
        "that the map did not move.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "mean cosine similarity",
        (0.0, 1.02),
    )


def _similarity(tables: Tables, cell: str, variant: str) -> pd.DataFrame:
    return tables["similarity"].query(
        "cell == @cell and variant == @variant and score == 'cosine' and group == 'success' "
        "and target == 'own_top1'"
    )


def _arm(variant: str) -> str:
    return {"adversarial": "attack", "noise": "matched noise"}[variant]


def compromised(tables: Tables, cell: str) -> Figure:
    """Returns figure 6: the chance of a layer being compromised, beside held-out noise."""
    rows = tables["compromised"].query(
        f"cell == @cell and group == 'success' and target == 'own_top1' and rule == '{PAPERS_RULE}'"
    )
    noise = rows.query("arm == 'noise' and strength == 1").assign(series="held-out noise, 100 %")
    attack = rows[rows["arm"] == "attack"]
    attack = attack.assign(series=attack["strength"].map(percent))
    table = pd.concat([attack, noise]).rename(columns={"layer": "x", "share": "y"})
    return Figure(
        "figure_6",
        f"Chance of a layer being compromised ({cell})",
        "Share of successfully attacked images whose map is less similar to the clean map than the "
        "median under noise at that layer and strength: the paper's rule. The last line applies "
        "the same rule to a further draw of noise on the same images: what it calls compromised "
        "without any attack.",
        "lines",
        table[["series", "x", "y"]].reset_index(drop=True),
        "conv layer (block-conv, input to output)",
        "share of images",
        (0.0, 1.02),
    )


def compromised_counts(tables: Tables, cell: str) -> Figure:
    """Returns figure 7: how many layers an adversarial compromises."""
    rows = tables["counts"].query(
        f"cell == @cell and group == 'success' and target == 'own_top1' and rule == '{PAPERS_RULE}'"
    )
    noise = rows.query("arm == 'noise' and strength == 1").assign(series="held-out noise, 100 %")
    attack = rows[rows["arm"] == "attack"]
    attack = attack.assign(series=attack["strength"].map(percent))
    table = pd.concat([attack, noise]).rename(columns={"share": "y"})
    return Figure(
        "figure_7",
        f"Number of compromised layers of an image ({cell})",
        "Share of successfully attacked images by how many of their layers are compromised under "
        "the rule of figure 6, of images without an empty map; the last series is a further draw "
        "of noise on the same images.",
        "bars",
        table.assign(x=table["layers"].astype(str))[["series", "x", "y"]].reset_index(drop=True),
        "compromised layers",
        "share of images",
        (0.0, 1.02),
    )


def percent(strength: float) -> str:
    """Returns '25 %' for 0.25."""
    return f"{100 * strength:g} %"


def matrix(figure: Figure) -> tuple[pd.DataFrame, float, float]:
    """Returns a matrix figure's values, a row a series, and the ends of its colours."""
    table = figure.table
    wide = table.pivot(index="series", columns="x", values="y")
    wide = wide.loc[table["series"].unique(), table["x"].unique()]
    return wide, *(figure.y_range or (wide.min(axis=None), wide.max(axis=None)))


def plotly(figure: Figure) -> Any:
    """Returns a `plotly.graph_objects.Figure`."""
    import plotly.graph_objects as go

    drawn = go.Figure()
    series = list(figure.table.groupby("series", sort=False))
    if figure.kind == "matrix":
        wide, low, high = matrix(figure)
        drawn.add_heatmap(
            z=wide.to_numpy(), x=list(wide.columns), y=list(wide.index), zmin=low, zmax=high,
            colorscale="Viridis", texttemplate="%{z:.2f}",
        )  # fmt: skip
        drawn.update_yaxes(autorange="reversed")
        series = []
    for i, (name, rows) in enumerate(series):
        colour = COLOURS[i % len(COLOURS)]
        if figure.kind == "boxes":
            drawn.add_box(
                name=str(name), x=rows["x"], q1=rows["q1"], median=rows["median"], q3=rows["q3"],
                lowerfence=rows["low"], upperfence=rows["high"], marker_color=colour,
            )  # fmt: skip
        elif figure.kind == "bars":
            drawn.add_bar(name=str(name), x=rows["x"], y=rows["y"], marker_color=colour)
        else:
            error = None
            if "low" in rows:
                above, below = rows["high"] - rows["y"], rows["y"] - rows["low"]
                error = {"type": "data", "array": above, "arrayminus": below, "thickness": 1}
            many = len(rows) > 30
            drawn.add_scatter(
                name=str(name), x=rows["x"], y=rows["y"], error_y=error,
                mode="lines" if many else "lines+markers",
                line={"color": colour, "dash": DASHES[i % len(DASHES)]},
                marker={"symbol": MARKS[i % len(MARKS)], "size": 7},
            )  # fmt: skip
    if figure.panel is not None:
        picture, columns, rows = figure.panel
        drawn.add_trace(go.Image(z=picture, hoverinfo="skip"))
        height, width = picture.shape[0] / len(rows), picture.shape[1] / len(columns)
        drawn.update_xaxes(
            tickvals=[(i + 0.5) * width for i in range(len(columns))], ticktext=columns
        )
        drawn.update_yaxes(tickvals=[(i + 0.5) * height for i in range(len(rows))], ticktext=rows)
    elif figure.kind != "matrix":
        categorical = not pd.api.types.is_numeric_dtype(figure.table["x"])
        drawn.update_xaxes(type="category" if categorical else "log" if figure.log_x else "linear")
        drawn.update_yaxes(range=figure.y_range)
    drawn.update_xaxes(title=figure.x)
    drawn.update_yaxes(title=figure.y)
    drawn.update_layout(
        title={"text": figure.title, "font": {"size": 15}},
        template="plotly_white",
        height=440 if figure.panel is None else _pixels(figure.panel[0]),
        showlegend=len(series) > 1,
        legend={"orientation": "h", "y": -0.25},
        margin={"l": 60, "r": 20, "t": 50, "b": 60},
    )
    return drawn


def png(figure: Figure, path: Path) -> None:
    """Writes the figure as a PNG, whole or not at all, the same bytes for the same figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=_inches(figure), dpi=110)
    FigureCanvasAgg(canvas)
    axes = canvas.add_subplot()
    _draw(figure, axes)
    axes.set_title(figure.title, fontsize=11)
    axes.set_xlabel(figure.x)
    axes.set_ylabel(figure.y)
    if figure.y_range is not None and figure.kind != "matrix":
        axes.set_ylim(*figure.y_range)
    if figure.log_x:
        axes.set_xscale("log")
    if figure.panel is None and figure.kind != "matrix":
        axes.grid(alpha=0.25)
        if figure.table["series"].nunique() > 1:
            axes.legend(fontsize=8, framealpha=0.9)
    canvas.tight_layout()
    content = io.BytesIO()
    canvas.savefig(content, format="png", metadata={"Software": None})
    with artifacts.whole(path) as temporary:
        temporary.write_bytes(content.getvalue())


def _pixels(picture: np.ndarray) -> int:
    """Returns the height of a panel that is about as wide as a page."""
    height, width = picture.shape[:2]
    return max(330, 130 + round(800 * height / max(width, 2 * height)))


def _inches(figure: Figure) -> tuple[float, float]:
    if figure.panel is None:
        return 8.4, 4.6
    height, width = figure.panel[0].shape[:2]
    return (10.5, 1.0 + 9.0 * height / width) if width > height else (6.0, 1.0 + 5 * height / width)


def _draw(figure: Figure, axes: Any) -> None:
    groups = list(figure.table.groupby("series", sort=False))
    if figure.panel is not None:
        picture, columns, rows = figure.panel
        height, width = picture.shape[0] / len(rows), picture.shape[1] / len(columns)
        axes.imshow(picture, interpolation="nearest")
        axes.set_xticks([(i + 0.5) * width for i in range(len(columns))], columns, fontsize=8)
        axes.set_yticks([(i + 0.5) * height for i in range(len(rows))], rows, fontsize=8)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        return
    if figure.kind == "matrix":
        wide, low, high = matrix(figure)
        axes.imshow(wide, vmin=low, vmax=high, cmap="viridis", aspect="auto")
        axes.set_xticks(range(wide.shape[1]), wide.columns, fontsize=8)
        axes.set_yticks(range(wide.shape[0]), wide.index, fontsize=8)
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            dark = value < (low + high) / 2
            axes.text(column, row, f"{value:.2f}", ha="center", va="center",
                      color="white" if dark else "black")  # fmt: skip
        return
    for i, (name, rows) in enumerate(groups):
        colour = COLOURS[i % len(COLOURS)]
        if figure.kind == "boxes":
            stats = [
                {"med": r.median, "q1": r.q1, "q3": r.q3, "whislo": r.low, "whishi": r.high,
                 "label": r.x}
                for r in rows.itertuples()
            ]  # fmt: skip
            axes.bxp(stats, showfliers=False, patch_artist=True,
                     boxprops={"facecolor": "#cfe4f3", "edgecolor": colour},
                     medianprops={"color": COLOURS[1], "linewidth": 1.6})  # fmt: skip
        elif figure.kind == "bars":
            width = 0.85 / len(groups)
            places = np.arange(len(rows)) + (i - (len(groups) - 1) / 2) * width
            axes.bar(places, rows["y"], width, label=name, color=colour)
            turned = {"rotation": 30, "ha": "right"} if rows["x"].str.len().max() > 6 else {}
            axes.set_xticks(np.arange(len(rows)), rows["x"], **turned)
        else:
            style = {
                "color": colour, "label": name, "linewidth": 1.6, "markersize": 4.5,
                "linestyle": MATPLOTLIB_DASHES[i % len(MATPLOTLIB_DASHES)],
                "marker": None if len(rows) > 30 else MATPLOTLIB_MARKS[i % len(MATPLOTLIB_MARKS)],
            }  # fmt: skip
            if "low" in rows:
                error = [rows["y"] - rows["low"], rows["high"] - rows["y"]]
                axes.errorbar(rows["x"], rows["y"], yerr=error, capsize=2, elinewidth=1, **style)
            else:
                axes.plot(rows["x"], rows["y"], **style)
