"""The question and the answer on one screen, and the list of built studies."""

import charts
import frame
import lineage
import streamlit as st

from camdrift.analysis import flags, tables
from camdrift.papers import report
from camdrift.papers.chakraborty2022 import figures as generalisation_figures
from camdrift.papers.klawikowska2020 import figures as hardening_figures
from camdrift.papers.renkhoff2022 import figures
from camdrift.settings import Hardening, Study

QUESTIONS = {
    "study": "When an image is attacked, do the class-activation maps of each conv layer drift "
    "further than under the same amount of plain noise, and does the drift give the attack away?",
    "hardening": "How do attacks change LRP relevance maps, do relevance signatures reveal them, "
    "and do models retrained on attacked images withstand attacks made for themselves?",
    "generalisation": "Do other networks behave alike? An attack is made on one network and "
    "carried to the others; how much accuracy is lost, and does the shift of maps explain it?",
}

view = frame.view()
study_tables, plan = view.tables, view.plan
st.header(plan.title, anchor=False)
st.write(QUESTIONS[frame.KINDS[type(plan)]])
verdicts = study_tables["claims"].query("verdict != 'not run here'")["verdict"].value_counts()
counts = ", ".join(f"{number} '{verdict}'" for verdict, number in verdicts.items())
st.markdown(f"**Of {verdicts.sum()} published claims tested here: {counts}.** Numbers rest on "
            "this study's own images and models, not on those of any paper.")  # fmt: skip

if isinstance(plan, Study):
    facts = study_tables["attacks"].set_index("cell").loc[plan.headline]
    factorial = study_tables["factorial"].query("cell == @plan.headline and layer == 'mean'")
    excess = study_tables["excess"].query(
        "cell == @plan.headline and layer == 'mean' and strength == 1"
    )
    metrics = st.columns(4)
    metrics[0].metric("Class flipped", f"{facts['success_rate']:.0%}",
                    help=f"{facts['successes']} of {facts['images']} test images")  # fmt: skip
    for column, title, group, target in (
        (metrics[1], "Excess, flipped, own class", "success", "own_top1"),
        (metrics[2], "Excess, flipped, clean class", "success", "seed_class"),
        (metrics[3], "Excess, not flipped", "failure", "own_top1"),
    ):
        row = excess[(excess["group"] == group) & (excess["target"] == target)]
        if len(row):
            estimate = tables.as_text(*row[["mean", "low", "high"]].iloc[0])
            value, _, interval = estimate.partition(" ")
            column.metric(title, value, interval, delta_color="off", delta_arrow="off")
    st.caption(
        f"Cell '{plan.headline}', strength 100 %: share of images whose class the attack flips, "
        "and the excess when each changed map explains its own class or the clean image's. "
        "Excess: cosine similarity to the clean map under noise of the attack's size minus that "
        "under attack, mean over decided layers, with a 95 % interval resampled by source picture."
    )
    frame.show(
        figures.drift_by_arm(study_tables, plan.headline, "own_top1")
        if len(factorial)
        else figures.excess_by_layer(study_tables, plan.headline)
    )
    frame.table(
        report.headline(study_tables), "headline", "Every cell of the study, strength 100 %."
    )
    for cell in study_tables["attacks"]["cell"]:
        for text in flags.texts(study_tables, cell):
            st.warning(f"{cell}: {text}", icon=":material/flag:")
elif isinstance(plan, Hardening):
    frame.show(hardening_figures.table_1(study_tables))
    frame.show(hardening_figures.success_by_model(study_tables))
else:
    frame.show(generalisation_figures.table_1(study_tables))
    frame.show(generalisation_figures.table_3(study_tables, plan.explains))

frame.show(charts.verdicts(study_tables["claims"]))
st.subheader("The pipeline", anchor=False)
diagram = lineage.diagram()
if diagram:
    st.mermaid_chart(diagram, alt="The stages of the pipeline and the stages that each depends on.")
    st.caption("Stages of the DVC pipeline; an arrow leads from a stage to one that reads it.")
st.subheader("Built studies", anchor=False)
st.dataframe(lineage.built_studies(frame.plans(frame.current_settings())), hide_index=True,
             alt="Studies, and which of their results are in this folder")  # fmt: skip
st.caption(
    "Tables are small and in git. `make repro` builds the artefacts (images, maps, scores of "
    "single images); `dvc pull` fetches them from a remote that has them."
)
