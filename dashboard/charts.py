"""Charts that only a dashboard has: those that are clicked, or moved by a slider."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from camdrift import drawing
from camdrift.drawing import COLOURS, MARKS, Figure

MEASURES = {
    "excess": "excess drift",
    "adversarial": "similarity under attack",
    "noise": "similarity under noise",
}


def verdicts(claims: pd.DataFrame) -> Figure:
    """Returns how many claims of each paper have each verdict, corrected."""
    counts = claims.groupby(["verdict", "paper"], sort=False).size().rename("y").reset_index()
    return Figure(
        "verdicts", "Published claims by verdict",
        "Each claim's statistic and what decides it were fixed before any result; verdicts are "
        "those of the corrected experiment, on this study's own images and model.",
        "bars", counts.rename(columns={"verdict": "series", "paper": "x"}), "paper", "claims",
    )  # fmt: skip


def strip(values: pd.DataFrame, *, title: str, measure: str) -> Any:
    """Returns a heat strip, rows by strength or method, columns by layer.

    `values` are rows `row, layer, value, n`. Each field has a mark that carries `[row, layer]`,
    which a click selects.
    """
    rows, layers = values["row"].unique(), values["layer"].unique()
    wide = values.pivot(index="row", columns="layer", values="value").loc[rows, layers]
    counts = values.pivot(index="row", columns="layer", values="n").loc[rows, layers]
    drift = measure == "excess"
    reach = float(np.nanmax(np.abs(wide.to_numpy()), initial=0.01))
    drawn = go.Figure()
    drawn.add_heatmap(
        z=wide.to_numpy(), x=layers, y=rows, zmin=-reach if drift else 0,
        zmax=reach if drift else 1,
        colorscale="PuOr_r" if drift else "Viridis", hoverinfo="skip",
        colorbar={"title": "excess" if drift else "similarity", "thickness": 12},
    )  # fmt: skip
    places = [(row, layer) for row in rows for layer in layers]
    texts = [
        f"{row}, layer {layer}: "
        + (f"{wide.loc[row, layer]:.3f}, {counts.loc[row, layer]:.0f} images"
           if pd.notna(wide.loc[row, layer]) else "no image with a map")
        for row, layer in places
    ]  # fmt: skip
    drawn.add_scatter(
        x=[layer for _, layer in places], y=[row for row, _ in places], mode="markers",
        marker={"size": 18, "opacity": 0.01, "symbol": "square"}, customdata=places, text=texts,
        hoverinfo="text", showlegend=False,
    )  # fmt: skip
    drawn.update_layout(
        title={"text": title, "font": {"size": 15}}, template="plotly_white",
        height=170 + 34 * len(rows), margin={"l": 60, "r": 10, "t": 50, "b": 50},
        xaxis={"title": "conv layer (block-conv, input to output)", "type": "category"},
        yaxis={"type": "category", "autorange": "reversed"}, clickmode="event+select",
    )  # fmt: skip
    return drawn


def spread(rows: pd.DataFrame, *, title: str) -> Figure:
    """Returns the distribution of a similarity over images, under attack and under noise."""
    edges = np.linspace(0, 1, 21)
    parts = []
    for name, label in (("adversarial", "attack"), ("noise", "matched noise")):
        counts, _ = np.histogram(rows[name].dropna(), bins=edges)
        middles = [f"{x:.3f}" for x in (edges[:-1] + edges[1:]) / 2]
        parts.append(pd.DataFrame({"series": label, "x": middles, "y": counts}))
    return Figure(
        "spread", title,
        "Number of images by similarity of their changed map to their clean one, in steps of 0.05; "
        "1 means that the map did not move. Images with an empty map are left out.",
        "bars", pd.concat(parts), "cosine or structural similarity", "images",
    )  # fmt: skip


def profile(rows: pd.DataFrame, *, title: str) -> Figure:
    """Returns one image's similarities by layer, under attack and under noise."""
    parts = [
        rows.assign(series=label, x=rows["layer"], y=rows[name])[["series", "x", "y"]]
        for name, label in (("adversarial", "attack"), ("noise", "matched noise"))
    ]
    return Figure(
        "profile", title,
        "Cosine similarity of this image's changed map to its clean map at each layer; 1 means "
        "that the map did not move. A layer with an empty map has no point.",
        "lines", pd.concat(parts), "conv layer (block-conv, input to output)",
        "cosine similarity", (0.0, 1.02),
    )  # fmt: skip


def histogram(judged: pd.DataFrame, detector: str, limit: float) -> Any:
    """Returns what a detector scores test images, by kind, with a threshold as a line."""
    kinds = {"clean": "clean", "noise": "matched noise", "failure": "attack, class kept",
             "success": "attack, class flipped"}  # fmt: skip
    values = judged[detector].dropna()
    edges = np.linspace(values.min(), values.max() or 1, 31)
    drawn = go.Figure()
    for i, (kind, label) in enumerate(kinds.items()):
        mine = judged.loc[judged["kind"] == kind, detector].dropna()
        if len(mine):
            counts, _ = np.histogram(mine, bins=edges)
            drawn.add_bar(
                x=(edges[:-1] + edges[1:]) / 2, y=counts, name=label,
                marker={"color": COLOURS[i], "pattern": {"shape": ["", "/", "x", "."][i]}},
            )  # fmt: skip
    drawn.add_vline(x=limit, line={"color": COLOURS[1], "dash": "dash"})
    drawn.update_layout(
        barmode="stack", template="plotly_white", height=380,
        title={"text": f"Scores of {detector}, test images", "font": {"size": 15}},
        xaxis_title="score, higher is more adversarial", yaxis_title="images",
        legend={"orientation": "h", "y": -0.25}, margin={"l": 60, "r": 20, "t": 50, "b": 60},
    )  # fmt: skip
    return drawn


def plane(points: pd.DataFrame, *, colour: str) -> Any:
    """Returns the plane of signatures; each mark carries `[on, image]`, which a click selects."""
    drawn = go.Figure()
    for i, (name, rows) in enumerate(points.groupby(colour, sort=True)):
        drawn.add_scatter(
            x=rows["x"], y=rows["y"], mode="markers", name=drawing.plain(name),
            customdata=rows[["on", "image"]].to_numpy().tolist(),
            text=[
                f"image {r.image}, {r.on}: {drawing.plain(r.class_before)} taken for "
                f"{drawing.plain(r.class_after)}" for r in rows.itertuples()
            ],
            hoverinfo="text",
            marker={"color": COLOURS[i % len(COLOURS)], "size": 9, "opacity": 0.8,
                    "symbol": MARKS[(i + i // len(COLOURS)) % len(MARKS)]},
        )  # fmt: skip
    drawn.update_layout(
        title={"text": "Relevance signatures of images", "font": {"size": 15}},
        template="plotly_white", height=560, xaxis_title="UMAP 1 (no unit)",
        yaxis_title="UMAP 2 (no unit)", clickmode="event+select",
        legend={"orientation": "h", "y": -0.15}, margin={"l": 60, "r": 20, "t": 50, "b": 60},
    )  # fmt: skip
    return drawn
