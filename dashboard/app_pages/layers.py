"""Drift by layer, and the images behind each field of it."""

import charts
import frame
import pandas as pd
import streamlit as st

from camdrift import scores
from camdrift.analysis.drawing import percent
from camdrift.papers.renkhoff2022 import figures
from camdrift.settings import Study

GROUPS = {"success": "class flipped", "failure": "class not flipped", "all": "all images"}
ROWS = ("strengths", "methods", "controls")
CONTROLS = {
    "nothing": "nothing (identity)", "adversarial": "attack", "noise": "matched noise",
    "negated": "attack, negated", "sign_shuffled": "attack, signs shuffled",
    "permuted": "attack, pixels permuted", "phase_randomised": "attack, phases randomised",
    "raised_noise": "noise raised until it flips", "unrelated": "unrelated images (floor)",
}  # fmt: skip

view = frame.view(Study, what="layers to compare")
made = view.made
st.header("Layers", anchor=False)
boxes = st.columns(3)
with boxes[0]:
    cell = frame.choose_cell(view)
methods = ["GradCAM"]
if "methods" in made:  # tables of before have none
    methods = made["methods"].query("cell == @cell")["method"].unique().tolist() or methods
rows = boxes[1].selectbox("Rows", ROWS, key="rows", bind="query-params")
target = boxes[2].selectbox("Maps explain", list(frame.POLICIES), key="target",
                            format_func=frame.POLICIES.get, bind="query-params")  # fmt: skip
measure, score, group = "excess", "cosine", "all"
if rows != "controls":
    group = boxes[0].selectbox("Images", list(GROUPS), key="group", format_func=GROUPS.get,
                               bind="query-params")  # fmt: skip
if rows == "strengths":
    measure = boxes[1].selectbox("Shows", list(charts.MEASURES), key="measure",
                                 format_func=charts.MEASURES.get, bind="query-params")  # fmt: skip
    measured = made["similarity"].query("cell == @cell")["score"].unique().tolist()
    score = boxes[2].selectbox("Score", measured, key="score", bind="query-params")


def fields() -> pd.DataFrame:
    """Returns what the strip shows: `row, layer, value, n, strength, method`."""
    first = methods[0]
    if rows == "methods":
        if "methods" not in made:
            return pd.DataFrame()
        found = made["methods"].query("cell == @cell and target == @target and group == @group")
        return found.assign(row=found["method"], strength=1.0)
    if rows == "controls":
        found = made["controls"].query("cell == @cell and target == @target and draw == 0")
        found = found[found["protocol"] == found["protocol"].iloc[0]]
        order = found["variant"].map({name: i for i, name in enumerate(CONTROLS)})
        found = found.assign(order=order).sort_values("order", kind="stable")
        return found.assign(row=found["variant"].map(CONTROLS), strength=1.0, method=first)
    if measure == "excess" and score == "cosine":
        found = made["excess"].query("cell == @cell and target == @target and group == @group")
    else:
        keys = ["strength", "layer"]
        found = made["similarity"].query(
            "cell == @cell and target == @target and score == @score and group == @group "
            "and strength > 0"
        )
        arms = {name: part.set_index(keys) for name, part in found.groupby("variant")}
        if len(arms) < 2:
            return pd.DataFrame()
        drift = arms["noise"]["mean"] - arms["adversarial"]["mean"]
        drift = drift if scores.by_name()[score].HIGHER_IS_ALIKE else -drift
        found = arms["noise" if measure == "noise" else "adversarial"]
        found = found.assign(mean=drift if measure == "excess" else found["mean"]).reset_index()
    return found.assign(row=found["strength"].map(percent), method=first)


def clicked() -> None:
    """Takes the field that was clicked."""
    points = st.session_state["strip"]["selection"]["points"]
    if points:
        row, layer = points[0]["customdata"][:2]
        st.session_state["layer"] = layer
        if rows == "strengths":
            st.session_state["strength"] = float(row.removesuffix(" %")) / 100
        elif rows == "methods":
            st.session_state["method"] = row


def strip() -> pd.DataFrame:
    """Shows the strip and returns its fields, none where there are no such rows."""
    values = fields()
    if values.empty:
        st.info("Nothing to show: the tables have no such rows (no image of this kind).")
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
    st.plotly_chart(charts.clickable(figure, values["n"]), key="strip", on_select=clicked,
                    selection_mode="points", alt=f"{title}: {rows} by layer",
                    config={"displaylogo": False})  # fmt: skip
    frame.read(figure, "strip_kept")
    st.caption("Choose a field, or its layer below, to see the images behind it; of a control, "
               "those of the attack and its noise at that layer.")  # fmt: skip
    return values


def behind(values: pd.DataFrame) -> None:
    """Shows the distribution and the images behind a field of the strip."""
    labels = values["layer"].unique().tolist()
    strengths = sorted(values["strength"].unique().tolist())
    pick = st.columns(3)
    layer = frame.choice(pick[0], "Layer", labels, key="layer", default=labels[-1])
    strength = frame.choice(pick[1], "Strength", strengths, key="strength", default=1.0,
                            format_func=percent)  # fmt: skip
    method = frame.choice(pick[2], "Method", methods, key="method",
                          help="those after the first were scored by cosine")  # fmt: skip
    st.subheader(f"Layer {layer}, strength {percent(strength)}", anchor=False)
    used = score if method == methods[0] else "cosine"
    asked = {"strength": strength, "target": target, "method": method, "score": used}
    try:
        found = frame.pairs(view, cell, layer=layer, **asked)
    except FileNotFoundError as fault:
        frame.missing(view, fault)
        return
    opened = frame.opened(view, cell)
    facts = frame.images(view, opened).set_index("image")[["id", "class_name", "success"]]
    found = found.join(facts, on="image")
    found = found if group == "all" else found[found["success"] == (group == "success")]
    title = f"{used} at layer {layer}, {percent(strength)}"
    frame.show(charts.spread(found, score=used, title=title))
    found = found.sort_values("excess", ascending=False, na_position="last")
    columns = ["id", "class_name", "adversarial", "noise", "excess", "success"]
    picked = st.dataframe(
        found[columns].round(3), hide_index=True, on_select="rerun",
        # A choice is of these rows alone.
        key=f"behind {cell} {layer} {strength} {method} {target} {group} {used}",
        selection_mode="single-row", alt="The images behind the field, most drifted first",
    )["selection"]["rows"]  # fmt: skip
    st.caption("Most drifted first. Choose a row to look at the image.")
    if picked:
        # As the page's own widgets put their choices into the address.
        choices = {
            "study": view.study, "cell": cell, "image": str(found["id"].iloc[picked[0]]),
            "strength": percent(strength), "method": method, "target": frame.POLICIES[target],
        }  # fmt: skip
        st.page_link("app_pages/image.py", label="Look at this image", icon=":material/image:",
                     query_params=choices)  # fmt: skip


values = strip()
if len(values):
    behind(values)

st.subheader("Figures", anchor=False)
views = {
    "Similarity by strength, attack": lambda: figures.figure_5a(made, cell),
    "Similarity by strength, as published": lambda: figures.figure_5a_as_published(made, cell),
    "Excess drift by layer": lambda: figures.excess_by_layer(made, cell),
    "Excess drift by strength": lambda: figures.excess_by_strength(made, cell),
    "Excess drift by method": lambda: figures.excess_by_method(made, cell),
    "Similarity by strength, noise": lambda: figures.figure_5b(made, cell),
    "Distribution, attack": lambda: figures.figure_4a(made, cell),
    "Distribution, noise": lambda: figures.figure_4b(made, cell),
    "Compromised layers": lambda: figures.figure_6(made, cell),
    "Compromised layers of an image": lambda: figures.figure_7(made, cell),
    "Coverage, attack and noise": lambda: figures.figure_2a(made, cell),
    "Coverage by strength": lambda: figures.figure_2b(made, cell),
}
if "methods" not in made:
    del views["Excess drift by method"]
frame.show(views[frame.choice(st, "Figure", list(views), key="figure")]())
