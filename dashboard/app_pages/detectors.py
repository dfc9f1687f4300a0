"""Whether the drift gives the attack away: detectors of one image at a time."""

import charts
import frame
import numpy as np
import streamlit as st

from camdrift import detection_figures, report
from camdrift.drawing import percent
from camdrift.settings import Study

view = frame.view(Study, what="detectors")
made = view.made
st.header("Detectors", anchor=False)
cells = made["detectors"]["cell"].unique().tolist()
if not cells:
    st.info("No cell of this study names strengths under `detect:` in params.yaml.")
    st.stop()
headline = view.plan.headline
boxes = st.columns(3)
cell = boxes[0].selectbox("Cell", cells, index=cells.index(headline) if headline in cells else 0,
                          key="cell", bind="query-params")  # fmt: skip
strengths = made["detectors"].query("cell == @cell")["strength"].unique().tolist()
strength = boxes[1].selectbox("Strength", strengths, index=strengths.index(1.0), key="strength",
                              format_func=percent, bind="query-params")  # fmt: skip
st.caption(
    "Each detector sees one image, never its clean twin. Attacked images whose class flips against "
    "clean and noisy ones; fitted, chosen and tested on images of different pictures."
)
frame.table(report.trial(made, cell, strength), "trial",
            "Test images; in brackets 95 % intervals by source picture.")  # fmt: skip

st.subheader("A threshold and its price", anchor=False)
if "judged" not in made or made["judged"].query("cell == @cell").empty:
    st.info(f"The tables hold no scores of single images. {frame.how(view.chosen, view.study)}")
else:
    judged = made["judged"].query("cell == @cell and strength == @strength")
    known = [name for name in made["limits"].query("cell == @cell and strength == @strength")
             ["detector"] if judged[name].notna().any()]  # fmt: skip
    best = "behaviour_median" if "behaviour_median" in known else known[0]
    detector = boxes[2].selectbox("Detector", known, index=known.index(best), key="detector",
                                  bind="query-params")  # fmt: skip
    scores = judged[detector]
    limits = made["limits"].query("cell == @cell and strength == @strength")
    chosen = float(limits.set_index("detector")["limit"].get(detector, np.nan))
    low, high = float(scores.min()), float(scores.max())
    high = high if high > low else low + 1
    start = chosen if np.isfinite(chosen) else high
    boxes = st.columns(2)
    limit = boxes[0].slider("Threshold", low, high, float(np.clip(start, low, high)),
                            step=(high - low) / 200, format="%.3g",
                            key=f"limit_{detector}_{cell}_{strength}")  # fmt: skip
    prevalence = boxes[1].slider("Attacked among all images, %", 1, 99, 10, key="prevalence",
                                 bind="query-params") / 100  # fmt: skip
    yes = judged.loc[judged["kind"] == "success", detector].dropna()
    no = judged.loc[judged["kind"].isin(["clean", "noise"]), detector].dropna()
    tpr, tnr = float((yes >= limit).mean()), float((no < limit).mean())
    called = tpr * prevalence + (1 - tnr) * (1 - prevalence)
    numbers = st.columns(4)
    numbers[0].metric("True positive rate", f"{tpr:.0%}", f"of {len(yes)} flipped",
                      delta_color="off", delta_arrow="off")  # fmt: skip
    numbers[1].metric("True negative rate", f"{tnr:.0%}", f"of {len(no)} benign",
                      delta_color="off", delta_arrow="off")  # fmt: skip
    right = tpr * prevalence + tnr * (1 - prevalence)
    numbers[2].metric("Accuracy at this prevalence", f"{right:.0%}")
    numbers[3].metric(
        "Alarms that are right", f"{tpr * prevalence / called:.0%}" if called else "-"
    )
    drawn = charts.histogram(judged, detector, limit)
    st.plotly_chart(drawn, key="histogram", config={"displaylogo": False},
                    alt=f"Histogram of the scores of {detector} by kind of image")  # fmt: skip
    st.caption(
        "The dashed line is the threshold: what scores more is called adversarial. It starts at "
        "the one that was chosen on other images; moving it on these is looking, not testing."
    )
    frame.keep(judged, "judged")

st.subheader("Figures", anchor=False)
figures = {figure.title: figure for figure in detection_figures.of_study(made, cell)}
frame.show(figures[st.selectbox("Figure", list(figures), key="figure", bind="query-params")])
if len(made["knowing"]):
    st.subheader("Against an attack that knows the detector", anchor=False)
    frame.table(report.knowing(made), "knowing", "AUROC at the same budget, without and with "
                "knowledge of the detector; 0.5 is chance.")  # fmt: skip
st.subheader("Is NoiseCAM the confidence in disguise?", anchor=False)
frame.table(report.disguise(made, cell, strength), "disguise", "Rank correlation of its number of "
            "clusters with 1 minus the model's top probability, on test images, and the difference "
            "of their AUROCs.")  # fmt: skip
