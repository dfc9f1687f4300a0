"""Drift by layer, and the images behind each field."""

import address
import beside
import charts
import frame
import page
import pandas as pd
import streamlit as st

from camdrift import scores
from camdrift.analysis.drawing import Figure, percent
from camdrift.papers import interface
from camdrift.papers.renkhoff2022 import figures
from camdrift.settings import RENKHOFF, ZHANG
from camdrift.storage import ADVERSARIAL

GROUPS = {"success": "class flipped", "failure": "class not flipped", "all": "all images"}
ROWS = ("strengths", "methods", "controls")
CONTROLS = {
    "nothing": "nothing (identity)", "adversarial": "attack", "noise": "matched noise",
    "negated": "attack, negated", "sign_shuffled": "attack, signs shuffled",
    "permuted": "attack, pixels permuted", "phase_randomised": "attack, phases randomised",
    "displaced": "attack, colours at other places",
    "raised_noise": "noise raised until it flips",
    "below_boundary": "attack, just too weak to flip",
    "above_boundary": "attack, just strong enough to flip", "unrelated": "unrelated images (floor)",
}  # fmt: skip

view = frame.view(RENKHOFF, ZHANG, subject="layers to compare")
tables = view.tables
page.header("Layers")
boxes = st.columns(3)
with boxes[0]:
    cell = frame.choose_cell(view)
methods = ["GradCAM"]
if "methods" in tables:  # those of a study of attacks on maps have none
    methods = tables["methods"].query("cell == @cell")["method"].unique().tolist() or methods
choices = [name for name in ROWS if name != "methods" or "methods" in tables]
rows = address.choice(boxes[1], "Rows", choices, key="rows")
target = address.choice(boxes[2], "Maps explain", list(address.POLICIES), key="target",
                      format_func=address.POLICIES.get)  # fmt: skip
measure, score, group = "excess", "cosine", "all"
if rows != "controls":
    group = address.choice(boxes[0], "Images", list(GROUPS), key="group", format_func=GROUPS.get)
if rows == "strengths":
    measure = address.choice(boxes[1], "Shows", list(charts.MEASURES), key="measure",
                           format_func=charts.MEASURES.get)  # fmt: skip
    score_names = tables["similarity"].query("cell == @cell")["score"].unique().tolist()
    score = address.choice(boxes[2], "Score", score_names, key="score")


def fields() -> pd.DataFrame:
    """Returns the fields of the strip: `row, layer, value, n, strength, method`."""
    first = methods[0]
    if rows == "methods":
        table = tables["methods"].query("cell == @cell and target == @target and group == @group")
        return table.assign(row=table["method"], strength=1.0)
    if rows == "controls":
        table = tables["controls"].query("cell == @cell and target == @target and draw == 0")
        table = table[table["protocol"] == table["protocol"].iloc[0]]
        order = table["variant"].map({name: i for i, name in enumerate(CONTROLS)})
        table = table.assign(order=order).sort_values("order", kind="stable")
        return table.assign(row=table["variant"].map(CONTROLS), strength=1.0, method=first)
    if measure == "excess" and score == "cosine":
        table = tables["excess"].query("cell == @cell and target == @target and group == @group")
    else:
        keys = ["strength", "layer"]
        table = tables["similarity"].query(
            "cell == @cell and target == @target and score == @score and group == @group "
            "and strength > 0"
        )
        arms = {name: part.set_index(keys) for name, part in table.groupby("variant")}
        if len(arms) < 2:
            return pd.DataFrame()
        drift = arms["noise"]["mean"] - arms["adversarial"]["mean"]
        drift = drift if scores.by_name()[score].HIGHER_IS_ALIKE else -drift
        table = arms["noise" if measure == "noise" else "adversarial"]
        table = table.assign(mean=drift if measure == "excess" else table["mean"]).reset_index()
    return table.assign(row=table["strength"].map(percent), method=first)


def take_field() -> None:
    """Selects the layer and row of the field that was clicked."""
    points = st.session_state["strip"]["selection"]["points"]
    if points:
        row, layer = points[0]["customdata"][:2]
        st.session_state["layer"] = layer
        if rows == "strengths":
            st.session_state["strength"] = float(row.removesuffix(" %")) / 100
        elif rows == "methods":
            st.session_state["method"] = row


def strip() -> pd.DataFrame:
    """Shows the strip and returns its fields, an empty table where there are no such rows."""
    values = fields()
    if values.empty:
        page.info("Nothing to show: the tables have no such rows (no image of this kind).")
        return values
    values = values[values["layer"] != "mean"].rename(columns={"mean": "value"})
    if "decided" in values:
        values = values.assign(value=values["value"].where(values["decided"].astype(bool)))
    shows = "adversarial" if rows == "controls" else measure
    title = {
        "strengths": f"{charts.MEASURES[measure]} by strength, {score}, {GROUPS[group]}",
        "methods": f"excess drift by method at 100 %, {GROUPS[group]}",
        "controls": "similarity to the clean map at 100 %, attack, noise and controls",
    }[rows]
    title = f"{title[:1].upper()}{title[1:]} ({cell})"
    figure = charts.strip(values, title=title, measure=shows)
    page.plot(figure, charts.clickable(figure, values["n"]), key="strip", on_select=take_field,
               selection_mode="points", alt=f"{title}: {rows} by layer")  # fmt: skip
    page.read(figure, "strip_kept")
    page.caption("Choose a field, or its layer below, to see the images behind it. A field of a "
               "control shows the images of the attack and its noise at that layer.")  # fmt: skip
    return values


def behind(values: pd.DataFrame) -> None:
    """Shows the distribution and the images behind a field of the strip."""
    labels = values["layer"].unique().tolist()
    strengths = sorted(values["strength"].unique().tolist())
    pick = st.columns(3)
    layer = address.choice(pick[0], "Layer", labels, key="layer", default=labels[-1])
    strength = address.choice(pick[1], "Strength", strengths, key="strength", default=1.0,
                            format_func=percent)  # fmt: skip
    method = address.choice(pick[2], "Method", methods, key="method",
                          help="the cosine alone scores methods after the first")  # fmt: skip
    page.subheader(f"Layer {layer}, strength {percent(strength)}")
    pair_score = score if method == methods[0] else "cosine"
    arguments = {"strength": strength, "target": target, "method": method, "score": pair_score}
    try:
        pairs = frame.pairs(view, cell, layer=layer, **arguments)
    except FileNotFoundError as fault:
        frame.show_missing(view, fault)
        return
    artefacts = frame.open_case(view, cell)
    facts = frame.images(view, artefacts).set_index("image")[["id", "class_name", "success"]]
    pairs = pairs.join(facts, on="image")
    pairs = pairs if group == "all" else pairs[pairs["success"] == (group == "success")]
    title = f"{pair_score} at layer {layer}, {percent(strength)}"
    page.show(charts.spread(pairs, score=pair_score, title=title))
    pairs = pairs.sort_values("excess", ascending=False, na_position="last")
    columns = ["id", "class_name", "adversarial", "noise", "excess", "success"]
    # A choice, and a page of the gallery, is of these rows alone.
    rows_key = f"behind {cell} {layer} {strength} {method} {target} {group} {pair_score}"
    selection = st.dataframe(
        pairs[columns].round(3), hide_index=True, on_select="rerun", key=rows_key,
        selection_mode="single-row", alt="The images behind the field, most drifted first",
    )["selection"]["rows"]  # fmt: skip
    page.record_table(pairs[columns].round(3), "The images behind the field, most drifted first.")
    page.caption("Most drifted first. Choose a row to look at the image.")
    choices = {"study": view.study, "in_cell": cell, "at_strength": strength,
               "with_method": method, "explains": target, "order": "as in the set"}  # fmt: skip
    if selection:
        address.link("image", "Look at this image", icon=":material/image:", **choices,
                   image=str(pairs["id"].iloc[selection[0]]))  # fmt: skip
    drift = pairs["excess"].map("{:.2f}".format).where(pairs["excess"].notna(), "empty")
    kept = pairs["success"].map({True: "", False: "kept "})
    texts = kept + drift + " " + pairs["class_name"]
    shown = pairs.assign(text=texts, arm=ADVERSARIAL)
    frame.gallery(artefacts, shown, choices, of=rows_key)
    page.caption("The attacked images of the field in the same order: *kept* where the class "
               "does not flip, the excess drift, and the set's label. Each leads to its image.",
               )  # fmt: skip


values = strip()
if len(values):
    behind(values)


def chosen() -> Figure:
    """Returns the figure that the reader chooses."""
    if view.plan.paper == ZHANG:  # each is of all cells, whatever is chosen above
        drawn = [draw() for draw in interface.paper(ZHANG).by_name(view.plan, tables).values()]
        by_title = {figure.title: figure for figure in drawn}
        return by_title[address.choice(st, "Figure", list(by_title), key="figure")]
    views = {
        "Similarity by strength, attack": lambda: figures.figure_5a(tables, cell),
        "Similarity by strength, as published": lambda: figures.figure_5a_as_published(
            tables, cell
        ),  # fmt: skip
        "Excess drift by layer": lambda: figures.excess_by_layer(tables, cell),
        "Excess drift by strength": lambda: figures.excess_by_strength(tables, cell),
        "Excess drift by method": lambda: figures.excess_by_method(tables, cell),
        "Similarity by strength, noise": lambda: figures.figure_5b(tables, cell),
        "Distribution, attack": lambda: figures.figure_4a(tables, cell),
        "Distribution, noise": lambda: figures.figure_4b(tables, cell),
        "Compromised layers": lambda: figures.figure_6(tables, cell),
        "Compromised layers of an image": lambda: figures.figure_7(tables, cell),
        "Coverage, attack and noise": lambda: figures.figure_2a(tables, cell),
        "Coverage by strength": lambda: figures.figure_2b(tables, cell),
    }
    if "methods" not in tables:
        del views["Excess drift by method"]
    return views[address.choice(st, "Figure", list(views), key="figure")]()


pair = beside.rows(
    view, cell, "excess",
    f"strength == 1 and layer != 'mean' and target == '{target}' and group == '{group}'",
)  # fmt: skip
if pair is not None:
    page.show(charts.two_excesses(pair))
page.subheader("Figures")
page.show(chosen())
