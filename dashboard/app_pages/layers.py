"""Drift by layer and strength, and the images behind each field of it."""

import charts
import frame
import pandas as pd
import streamlit as st

from camdrift import figures
from camdrift.drawing import percent
from camdrift.settings import Study

GROUPS = {"success": "class flipped", "failure": "class not flipped", "all": "all images"}

view = frame.view(Study, what="layers to compare")
made = view.made
st.header("Layers", anchor=False)
boxes = st.columns(3)
with boxes[0]:
    cell = frame.choose_cell(view)
methods = ["GradCAM"]
if "methods" in made:  # tables of before have none
    methods = made["methods"].query("cell == @cell")["method"].unique().tolist() or methods
measure = boxes[1].selectbox("Shows", list(charts.MEASURES), key="measure",
                             format_func=charts.MEASURES.get, bind="query-params")  # fmt: skip
score = boxes[2].selectbox("Score", ["cosine", "ssim"], key="score", bind="query-params")
target = boxes[0].selectbox("Maps explain", list(frame.POLICIES), key="target",
                            format_func=frame.POLICIES.get, bind="query-params")  # fmt: skip
group = boxes[1].selectbox("Images", list(GROUPS), key="group", format_func=GROUPS.get,
                           bind="query-params")  # fmt: skip
method = boxes[2].selectbox("Method", methods, key="method", bind="query-params")


def fields() -> pd.DataFrame:
    """Returns what the strip shows: `row, layer, value, n`."""
    if method != methods[0]:
        rows = made["methods"].query("cell == @cell and target == @target and group == @group")
        rows = rows[(rows["method"] == method) & (rows["layer"] != "mean")]
        return rows.assign(row="100 %", value=rows["mean"])
    if measure == "excess" and score == "cosine":
        rows = made["excess"].query("cell == @cell and target == @target and group == @group")
        rows = rows[rows["layer"] != "mean"]
    else:
        keys = ["strength", "layer"]
        rows = made["similarity"].query(
            "cell == @cell and target == @target and score == @score and group == @group "
            "and strength > 0 and layer != 'mean'"
        )
        arms = {name: part.set_index(keys) for name, part in rows.groupby("variant")}
        if len(arms) < 2:
            return pd.DataFrame(columns=["row", "layer", "value", "n"])
        drift = arms["noise"]["mean"] - arms["adversarial"]["mean"]
        rows = arms["noise" if measure == "noise" else "adversarial"].copy()
        rows["mean"] = drift if measure == "excess" else rows["mean"]
        rows = rows.reset_index()
    return rows.assign(row=rows["strength"].map(percent), value=rows["mean"])


def clicked() -> None:
    """Takes the field that was clicked."""
    points = st.session_state["strip"]["selection"]["points"]
    if points:
        row, layer = points[0]["customdata"][:2]
        st.session_state["layer"] = layer
        st.session_state["strength"] = float(row.removesuffix(" %")) / 100


def strip() -> pd.DataFrame:
    """Shows the strip and returns its fields, none where there are no such rows."""
    shows = measure if method == methods[0] else "excess"
    values = fields()
    if method != methods[0]:
        st.caption("Tables hold excess by cosine at 100 % for this method.")
    if values.empty:
        st.info("Nothing to show: the tables have no such rows (no image of this kind, or SSIM of "
                "a target that was not scored).")  # fmt: skip
        return values
    text = charts.MEASURES[shows]
    title = f"{text[:1].upper()}{text[1:]} ({cell}, {GROUPS[group]})"
    drawn = charts.strip(values, title=title, measure=shows)
    st.plotly_chart(drawn, key="strip", on_select=clicked, selection_mode="points",
                    alt=f"{title}: strengths by layer", config={"displaylogo": False})  # fmt: skip
    st.caption(
        "A row is a strength of the attack (of its perturbation), a column a layer; excess drift "
        "is the similarity under noise of the attack's size minus that under attack. Choose a "
        "field, or layer and strength below, to see the images behind it."
    )
    frame.keep(values[["row", "layer", "value", "n"]], "strip")
    return values


def behind(values: pd.DataFrame) -> None:
    """Shows the distribution and the images behind a field of the strip."""
    labels = values["layer"].unique().tolist()
    strengths = sorted({float(row.removesuffix(" %")) / 100 for row in values["row"]})
    pick = st.columns(2)
    layer = pick[0].selectbox("Layer", labels, index=len(labels) - 1, key="layer",
                              bind="query-params")  # fmt: skip
    strength = pick[1].selectbox("Strength", strengths, index=strengths.index(1.0), key="strength",
                                 format_func=percent, bind="query-params")  # fmt: skip
    st.subheader(f"Layer {layer}, strength {percent(strength)}", anchor=False)
    asked = {"strength": strength, "target": target, "method": method, "score": score}
    try:
        rows = frame.pairs(view, cell, layer=layer, **asked)
    except FileNotFoundError as fault:
        frame.missing(view, fault)
        return
    opened = frame.opened(view, cell)
    facts = frame.images(view, opened).set_index("image")[["id", "class_name", "success"]]
    rows = rows.join(facts, on="image")
    rows = rows if group == "all" else rows[rows["success"] == (group == "success")]
    frame.show(charts.spread(rows, title=f"{score} at layer {layer}, {percent(strength)}"))
    rows = rows.sort_values("excess", ascending=False, na_position="last")
    columns = ["id", "class_name", "adversarial", "noise", "excess", "success"]
    picked = st.dataframe(
        rows[columns].round(3), hide_index=True, key="behind", on_select="rerun",
        selection_mode="single-row", alt="The images behind the field, most drifted first",
    )["selection"]["rows"]  # fmt: skip
    st.caption("Most drifted first. Choose a row to look at the image.")
    if picked:
        image = str(rows["id"].iloc[picked[0]])
        st.page_link(
            "app_pages/image.py", label="Look at this image", icon=":material/image:",
            query_params={"study": view.study, "cell": cell, "image": image},
        )  # fmt: skip


values = strip()
if len(values):
    behind(values)

st.subheader("Figures", anchor=False)
views = {
    "Similarity by strength, attack": lambda: figures.lines(made, cell, "adversarial", "5a"),
    "Similarity by strength, as published": lambda: figures.published(made, cell),
    "Excess drift by layer": lambda: figures.drift(made, cell),
    "Excess drift by strength": lambda: figures.groups(made, cell),
    "Excess drift by method": lambda: figures.methods(made, cell),
    "Similarity by strength, noise": lambda: figures.lines(made, cell, "noise", "5b"),
    "Distribution, attack": lambda: figures.boxes(made, cell, "adversarial", "4a"),
    "Distribution, noise": lambda: figures.boxes(made, cell, "noise", "4b"),
    "Compromised layers": lambda: figures.compromised(made, cell),
    "Compromised layers of an image": lambda: figures.compromised_counts(made, cell),
    "Coverage, attack and noise": lambda: figures.coverage_by_arm(made, cell),
    "Coverage by strength": lambda: figures.coverage_by_strength(made, cell),
}
if "methods" not in made:
    del views["Excess drift by method"]
frame.show(views[st.selectbox("Figure", list(views), key="figure", bind="query-params")]())
