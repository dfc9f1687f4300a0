"""Detectors of one image at a time: does the drift reveal the attack?"""

import address
import beside
import charts
import frame
import lineage
import numpy as np
import page
import streamlit as st
from scipy.stats import binomtest

from camdrift.analysis.drawing import percent
from camdrift.papers.tan2023 import adaptive, matrix, report
from camdrift.papers.tan2023 import figures as detection_figures
from camdrift.settings import TAN, DetectorStudy
from camdrift.storage import ADVERSARIAL, CLEAN, NOISE

# Of test images, in words, and the variant that is shown.
KINDS = {"clean": "clean", "noise": "noise", "failure": "kept", "success": "flipped"}
VARIANTS = {"clean": CLEAN, "noise": NOISE, "failure": ADVERSARIAL, "success": ADVERSARIAL}


def auroc(detector: str) -> float:
    """Returns a detector's AUROC on the cell, -1 where it has none."""
    rows = tables["detectors"].query(
        "cell == @cell and strength == @strength and detector == @detector "
        "and positives == 'success' and negatives == 'both'"
    )
    return float(rows["auroc"].fillna(-1).iloc[0]) if len(rows) else -1.0


def reach(key: str, positive: np.ndarray) -> None:
    """Sets the threshold to the largest at which the wanted share of attacks raises an alarm."""
    wanted = st.session_state.get("tpr")
    if wanted is not None and len(positive):
        needed = max(1, -(-wanted * len(positive) // 100))
        st.session_state[key] = float(np.sort(positive)[len(positive) - needed])


def forget_rate() -> None:
    """Clears the rate to reach, since the threshold was moved by hand."""
    st.session_state["tpr"] = None


def between(count: int, of: int) -> str:
    """Returns the 95 % interval of a share, Wilson's, and the number of images."""
    low, high = binomtest(count, of).proportion_ci(method="wilson")
    return f"{low:.0%} to {high:.0%}, {of} images"


def take_bin() -> None:
    """Selects the bin whose bar was clicked."""
    points = st.session_state["histogram"]["selection"]["points"]
    if points and points[0]["customdata"][0] in names:
        st.session_state[bin_key] = points[0]["customdata"][0]


def behind(place: int) -> None:
    """Shows the images whose scores are in a bin."""
    try:
        of = frame.read_view(view.settings.cells[cell].study)
        artefacts = frame.read_case(of, cell)
        facts = frame.read_images(of, artefacts).set_index("image")[["id", "class_name"]]
    except frame.AbsentError as fault:
        page.info(str(fault))
        return
    shown = scored[places == place].sort_values(detector, ascending=False).join(facts, on="image")
    texts = shown["kind"].map(KINDS) + " " + shown["class_name"]
    shown = shown.assign(text=texts, arm=shown["kind"].map(VARIANTS))
    choices = {"study": of.study, "in_cell": cell, "at_strength": strength,
               "order": "as in the set"}  # fmt: skip
    frame.gallery(artefacts, shown, choices, of=f"{cell} {strength} {detector} {place}")
    page.caption("The largest scores first: *kept* and *flipped* are attacked images by what "
                 "became of their class, then the set's label. Each leads to its image.",
                 )  # fmt: skip


view = frame.view(TAN, subject="detectors")
tables = view.tables
page.header("Detectors")
cells = tables["detectors"]["cell"].unique().tolist()
headline = view.settings.study(view.study, DetectorStudy).headline
boxes = st.columns(3)
cell = address.choice(boxes[0], "Cell", cells, key="cell",
                    default=headline)  # fmt: skip
strengths = tables["detectors"].query("cell == @cell")["strength"].unique().tolist()
strength = address.choice(boxes[1], "Strength", strengths, key="strength", default=1.0,
                        format_func=percent)  # fmt: skip
page.caption(
    "Each detector sees one image, never its clean twin. Attacked images whose class flips against "
    "clean and noisy ones; fitted, chosen and tested on images of different pictures."
)
rates = report.evaluation(tables, cell, strength)
order = rates["detector"].map(auroc).sort_values(ascending=False, kind="stable").index
page.table(rates.loc[order], "evaluation", "Test images, the largest AUROC first; in brackets "
            "95 % intervals by source picture.")  # fmt: skip

page.subheader("A threshold and its price")
if "judged" not in tables or tables["judged"].query("cell == @cell").empty:
    page.info(f"The tables hold no scores of single images. {frame.build_hint(view.study)}")
else:
    judged = tables["judged"].query("cell == @cell and strength == @strength")
    detectors = [name for name in tables["limits"].query("cell == @cell and strength == @strength")
             ["detector"] if judged[name].notna().any()]  # fmt: skip
    detectors = sorted(detectors, key=auroc, reverse=True)
    detector = address.choice(boxes[2], "Detector", detectors, key="detector")
    limits = tables["limits"].query("cell == @cell and strength == @strength")
    threshold = float(limits.set_index("detector")["limit"].get(detector, np.nan))
    scores = judged[detector].dropna()
    low, high = float(scores.min()), float(scores.max())
    step = max(high - low, 1e-6) / 200
    # One step beyond the scores, where no image raises an alarm, as with an infinite threshold.
    low, high = min(low, threshold if np.isfinite(threshold) else low), high + step
    high = max(high, threshold if np.isfinite(threshold) else high)
    boxes = st.columns(3)
    key = f"limit_{cell}_{strength}_{detector}"
    positive = judged.loc[judged["kind"] == "success", detector].dropna()
    negative = judged.loc[judged["kind"].isin(["clean", "noise"]), detector].dropna()
    if st.session_state.get("rate of", key) != key:  # of another detector, at the same rate
        reach(key, positive.to_numpy())
    st.session_state["rate of"] = key
    limit = boxes[0].slider("Threshold", low, high, threshold if np.isfinite(threshold) else high,
                            step=step, format="%.4g", key=key, bind="query-params",
                            on_change=forget_rate)  # fmt: skip
    if np.isnan(threshold):
        page.caption("No threshold was chosen: the choosing images are of one kind.")
    prevalence = boxes[2].slider("Attacked among all images, %", 1, 99, 10, key="prevalence",
                                 bind="query-params") / 100  # fmt: skip
    page.chose("Threshold", f"{limit:.4g}")
    page.chose("Attacked among all images", f"{prevalence:.0%}")
    if len(positive):
        boxes[1].number_input(
            "True positive rate to reach, %", 1, 100, None, key="tpr",
            placeholder="sets the threshold", on_change=reach, args=(key, positive.to_numpy()),
        )  # fmt: skip
    numbers = st.columns(4)
    if len(positive) and len(negative):
        tpr, tnr = float((positive >= limit).mean()), float((negative < limit).mean())
        alarms = tpr * prevalence + (1 - tnr) * (1 - prevalence)
        accuracy = tpr * prevalence + tnr * (1 - prevalence)
        share = f"{tpr * prevalence / alarms:.0%}" if alarms else "-"
        for column, title, value, of in (
            (numbers[0], "True positive rate", f"{tpr:.0%}",
             between(int((positive >= limit).sum()), len(positive))),
            (numbers[1], "False positive rate", f"{1 - tnr:.0%}",
             between(int((negative >= limit).sum()), len(negative))),
            (numbers[2], "Accuracy at this prevalence", f"{accuracy:.0%}", None),
            (numbers[3], "Alarms that are right", share, None),
        ):  # fmt: skip
            page.metric(column, title, value, of)
        page.caption("Rates of flipped and of benign test images, with 95 % intervals as if images "
                   "were independent; those above are by source picture.")  # fmt: skip
    else:
        page.info("The test images are of one kind: there are no rates.")
    figure = charts.histogram(judged, detector)
    bin_key = f"bin_{cell}_{strength}_{detector}"  # its options are of these
    scored = judged[judged[detector].notna()]
    edges, places = charts.bins(scored[detector])
    counts = np.bincount(places)
    names = {place: f"{edges[place]:.4g} to {edges[place + 1]:.4g} ({counts[place]})"
             for place in np.flatnonzero(counts)[::-1].tolist()}  # fmt: skip
    page.plot(figure, charts.with_threshold(figure, limit), key="histogram", alt=figure.caption,
              on_select=take_bin, selection_mode="points")  # fmt: skip
    page.read(figure, "histogram_kept")
    page.caption("Choose a bar, or its scores below, to see the images behind it.")
    behind(
        address.choice(
            st, "Scores (number of images)", list(names), key=bin_key, format_func=names.get
        )
    )

pair = beside.rows(
    view, cell, "detectors",
    "strength == 1 and positives == 'success' and negatives == 'both' and rule == 'chosen'",
)  # fmt: skip
if pair is not None:
    page.show(charts.two_evaluations(pair))
page.subheader("Figures")
figures = {figure.name: figure for figure in detection_figures.study_figures(tables, cell)}
titles = {name: figure.title.removesuffix(f" ({cell})") for name, figure in figures.items()}
if figures:
    page.show(figures[address.choice(st, "Figure", list(figures), key="figure",
                                    format_func=titles.get)])  # fmt: skip
else:
    page.caption("No figure: no test image's class was flipped.")
if "matrix" in tables:
    page.subheader("Every detector against every attack")
    costs = lineage.costs(view.study, frame.current_settings())
    stages = costs["stages"] if costs else []
    seconds = matrix.seconds(stages, headline, view.settings.detection)
    page.table(matrix.texts(tables, seconds or None), "matrix", "AUROC at strength 100 %, 0.5 is "
                "chance. Elsewhere: the mean when trained on another attack. Adaptively: from an "
                "attack that does not know the detector to one that does, within one eps. Passes: "
                "forward ones of the model an image. ms: an image of the headline cell, beyond "
                "what detectors before it had computed.")  # fmt: skip
if len(tables["adaptive"]):
    page.subheader("Under non-adaptive and adaptive attacks")
    page.table(adaptive.texts(tables), "adaptive", adaptive.reading(tables))
page.subheader("Is NoiseCAM the confidence in disguise?")
page.table(report.disguise(tables, cell, strength), "disguise", "Rank correlation of its number "
            "of clusters with 1 minus the model's top probability, on test images, and the "
            "difference of their AUROCs.")  # fmt: skip
