"""The answer: findings in sentences, and what every study says of every claim."""

from functools import partial

import address
import details
import evidence
import frame
import page
import pandas as pd
import streamlit as st

from camdrift.ops import readme


def take_field(key: str, table: pd.DataFrame, studies: list[str]) -> None:
    """Keeps the study and the claim of the field that was clicked, which a dialog shows."""
    for place, column in st.session_state[key]["selection"]["cells"][:1]:
        if column in studies and table[column].iloc[place]:
            st.session_state["field"] = column, table["claim"].iloc[place]


def forget_field() -> None:
    """Draws the matrices anew, without a selection, so that the same field opens again."""
    st.session_state["dialogs"] = st.session_state.get("dialogs", 0) + 1


@st.dialog("One claim on one study", width="large", on_dismiss=forget_field)
def show(study: str, claim: str) -> None:
    """Shows a study's verdict on a claim, and a link to the page with its controls and switches."""
    page.begin()  # a record of its own: it is no part of the page
    view = frame.view_of(study)
    page.caption(f"Study '{study}': {view.plan.title}")
    doubt = rows.loc[(rows["study"] == study) & (rows["claim"] == claim), "review"].iloc[0]
    if doubt:
        page.flag(f"Under review, without a vote: {doubt}.")
    details.show(view, claim)
    address.link("claims", f"{claim} in study '{study}'", icon=":material/open_in_new:",
               study=study, claim=claim, verdicts=[])  # fmt: skip


rows, faults = frame.evidence()
page.header("The answer so far")
page.markdown(
    "When an image is attacked, do the class-activation maps of the conv layers drift further "
    "than under the same amount of plain noise, and does that give the attack away?"
)
findings = readme.answer()
if findings:
    page.markdown(findings)
    page.caption(
        "The findings that are published with this repository. The matrix below is of the "
        "results in this folder, built here or published."
    )

for name, fault in faults.items():
    page.info(f"{fault} {frame.build_hint(name)}")
if rows.empty:
    page.info(f"No study is built yet. {frame.build_hint(st.session_state['study'])}")
    st.stop()
page.subheader("Every claim on all evidence")
page.caption(
    f"{evidence.MEANINGS}. A field has the claim's statistic with its 95 % interval and the number "
    "of images; ! marks flags, or a verdict that is under review and has no vote. A click on a "
    "field shows what stands behind it. *All sets* is the combined verdict, one vote for each "
    "image set; tiles vote only where no other set does. *Mixed*: sets contradict each other; "
    "*seen*: the claim, or its rule, was written when these results were known."
)
for paper, title in evidence.TITLES.items():
    table = evidence.matrix(rows, paper)
    studies = table.columns[len(evidence.FIRST) :].tolist()
    if not studies:
        continue
    titles = evidence.titles(rows, studies)
    page.markdown(f"**{title}** ({paper})")
    shown = {
        "claim": st.column_config.TextColumn(pinned=True, width=55),
        "all sets": st.column_config.TextColumn(width=130, help="Combined over image sets"),
        "says": st.column_config.TextColumn(width=300),
        "on": st.column_config.TextColumn(width=90, help="The sets that vote"),
    } | {
        study: st.column_config.TextColumn(title, help=f"Study '{study}'", width=215)
        for study, title in titles.items()
    }  # fmt: skip
    key = f"matrix_{paper}_{st.session_state.get('dialogs', 0)}"
    st.dataframe(
        evidence.shaded(table), hide_index=True, column_config=shown, key=key,
        on_select=partial(take_field, key, table, studies), selection_mode="single-cell",
        height="content", alt=f"Claims of {paper}: verdicts by study",
    )  # fmt: skip
    page.download(table, f"matrix_{paper}")
    page.record_table(evidence.shaded(table.rename(columns=titles)), "")
if field := st.session_state.pop("field", None):
    show(*field)
