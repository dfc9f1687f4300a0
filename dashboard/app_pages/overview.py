"""The question and the answer on one screen, and the list of built studies."""

import charts
import frame
import lineage
import page
import streamlit as st

from camdrift import settings
from camdrift.analysis import flags, tables
from camdrift.papers import interface
from camdrift.papers.renkhoff2022 import figures, report
from camdrift.papers.zhang2020 import report as maps
from camdrift.settings import LayerStudy

QUESTIONS = {
    settings.RENKHOFF: "When an image is attacked, do the class-activation maps of each conv layer "
    "drift further than under the same amount of plain noise?",
    settings.TAN: "Does a single image, without its clean twin, give away that it was attacked, "
    "and do detectors see more than the model's own confidence?",
    settings.KLAWIKOWSKA: "How do attacks change LRP relevance maps, do relevance signatures "
    "reveal them, and do models retrained on attacked images withstand attacks made for "
    "themselves?",
    settings.CHAKRABORTY: "Do other networks behave alike? An attack is made on one network and "
    "transferred to the others; how much accuracy is lost, and does the shift of maps explain it?",
    settings.ZHANG: "How far can an attack move the maps without a change of class, and how little "
    "need they move when the class changes, at the size of an attack on the class?",
}
# The figures that answer them; those of the layers stand beside numbers, see `layers`.
ANSWERS = {
    settings.TAN: ("tan_figure_8a", "auroc_under_adaptive_attack"),
    settings.KLAWIKOWSKA: ("klawikowska_table_1", "success_by_model"),
    settings.CHAKRABORTY: ("chakraborty_table_1", "chakraborty_table_3"),
    settings.ZHANG: ("drift_against_flip", "map_drift_clean_class", "map_drift_own_class"),
}


def layers(view: frame.View) -> None:
    """Shows the headline numbers of a layer study, its central figure and its cells."""
    headline = view.settings.study(view.study, LayerStudy).headline
    facts = view.tables["attacks"].set_index("cell").loc[headline]
    factorial = view.tables["factorial"].query("cell == @headline and layer == 'mean'")
    excess = view.tables["excess"].query("cell == @headline and layer == 'mean' and strength == 1")
    metrics = st.columns(4)
    page.metric(metrics[0], "Class flipped", f"{facts['success_rate']:.0%}",
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
            page.metric(column, title, value, interval)
    page.caption(
        f"Cell '{headline}', strength 100 %: share of images whose class the attack flips, "
        "and the excess when each changed map explains its own class or the clean image's. "
        "Excess: cosine similarity to the clean map under noise of the attack's size minus that "
        "under attack, mean over decided layers, with a 95 % interval resampled by source picture."
    )
    page.show(
        figures.drift_by_arm(view.tables, headline, "own_top1")
        if len(factorial)
        else figures.excess_by_layer(view.tables, headline)
    )
    page.table(report.headline(view.tables), "headline", "Every cell of the study, strength 100 %.")
    show_flags(view)


def show_flags(view: frame.View) -> None:
    """Shows the validity flags of all cells of a study."""
    for cell in view.tables["attacks"]["cell"]:
        for text in flags.texts(view.tables, cell):
            page.flag(f"{cell}: {text}")


view = frame.view()
plan, claims = view.plan, view.tables["claims"]
page.header(plan.title)
page.markdown(QUESTIONS[plan.paper])
verdicts = claims.query("verdict != 'not run here'")["verdict"].value_counts()
counts = ", ".join(f"{number} '{verdict}'" for verdict, number in verdicts.items())
page.markdown(f"**Of {verdicts.sum()} claims tested here: {counts}.** Numbers rest on "
            "this study's own images and models, not on those of any paper.")  # fmt: skip
if plan.paper == settings.RENKHOFF:
    layers(view)
draws = interface.paper(plan.paper).by_name(plan, view.tables)
for name in ANSWERS.get(plan.paper, ()):
    if name in draws:
        page.show(draws[name]())
if plan.paper == settings.ZHANG:
    page.table(maps.headline(view.tables), "headline", "Flips and drift, strength 100 %.")
    show_flags(view)

page.show(charts.verdicts(claims))
page.subheader("The pipeline")
diagram = lineage.diagram()
if diagram:
    page.record_line(diagram)
    st.mermaid_chart(diagram, alt="The stages of the pipeline and the stages that each depends on.")
    page.caption("Stages of the DVC pipeline; an arrow leads from a stage to one that reads it.")
page.subheader("Built studies")
rows = lineage.built_studies(frame.plans(frame.current_settings()))
alt = "Studies, and which of their results are in this folder"
st.dataframe(rows, hide_index=True, alt=alt)
page.record_table(rows, f"{alt}.")
page.caption(
    "Published tables are in git. `make repro` builds this machine's, and the artefacts (images, "
    "maps, scores of single images); `dvc pull` fetches both from a remote that has them."
)
