"""A study's verdict on a claim in detail: both sides, flags and figures."""

import frame
import page
import streamlit as st

from camdrift import storage
from camdrift.papers import claims, interface


def show_figures(view: frame.View, claim: str) -> int:
    """Shows the figures of a claim and returns their number; pictures as the report wrote them."""
    paper = interface.paper(view.plan.paper)
    draws, count = paper.by_name(view.plan, view.tables), 0
    for name in next(known.figures for known in paper.CLAIMS if known.id == claim):
        path = storage.shown(view.study, "figures") / f"{name}.png"
        figure = draws[name]() if name in draws else None
        if figure is not None and not figure.is_blank:
            page.show(figure)
        elif figure is None and path.exists():
            page.image(path.read_bytes(), alt=name)
        else:
            continue
        count += 1
    return count


def show(view: frame.View, claim: str) -> None:
    """Shows a study's verdict on a claim: published beside corrected, flags, and figures."""
    row = claims.texts(view.tables).set_index("claim").loc[claim]
    page.subheader(f"{claim}: {row['says']}")
    page.caption(f"{row['of']}, {row['where']}. {row['statistic']}.")
    corrected = f"{row['corrected']} {row['verdict']}"
    if row["after Holm"]:
        corrected += f"; after Holm over all claims: {row['after Holm']}"
    sides = st.columns(2)
    for side, title, text, detail in (
        (sides[0], "As published", row["as published"], row["behind it, as published"]),
        (sides[1], "Corrected", corrected, row["behind it"]),
    ):
        with side.container(border=True):
            page.markdown(f"**{title}**")
            page.line(text.strip() or "not run here")
            page.caption("Details of the statistic:")
            page.line(detail or "-")
    if row["flags"]:
        page.flag(f"Flags that touch this claim: {row['flags']}")
    page.line(f"Rests on: {row['rests on']}")
    if row["verdict"] == "not run here":
        page.info("This study does not test this claim; choose another study to see its verdict.")
    elif not show_figures(view, claim):
        page.caption("No figure shows this claim: it is the single number above.")
