"""The claims of klawikowska2020, and the tables and figures of a study that bear them."""

from camdrift.papers.findings import Claim

PAPER = "klawikowska2020"

CLAIMS = (
    Claim("C1", PAPER, "FGSM and one-pixel make accuracy fall far", "table 1",
          "85.80 to 58.37 and 64.62 %", "attack success on images that were right", "> 30 %",
          tables=("attacks", "readings"), figures=("klawikowska_table_1",)),
    Claim("C2", PAPER, "Retraining restores accuracy", "table 1", "84.15 and 86.09 %",
          "immune model on the extended set against the clean model on the clean set",
          "within 3 points", tables=("sets", "readings"), figures=("klawikowska_table_1",)),
    Claim("C2b", PAPER, "... also against the attack made anew", "ours", "",
          "attack success on the immune model minus half of that on the clean model", "at most 0",
          tables=("attacks", "readings"), figures=("success_by_model",)),
    Claim("C3", PAPER, "FGSM practically reverses the relevance map", "4.1, fig. 3b", "",
          "correlation of LRP maps, clean and attacked", "mean < 0",
          tables=("relevance", "readings"),
          figures=("klawikowska_figure_3", "correlation_under_controls")),
    Claim("C4", PAPER, "A one-pixel attack draws the relevance to its pixel", "4.1, fig. 3d", "",
          "relevance in the 5x5 around the pixel, over that before", "> 3 times in more than half",
          tables=("relevance", "readings"), figures=("klawikowska_figure_3",)),
    Claim("C5", PAPER, "The immune model's map looks as before the attack", "4.1, fig. 3e", "",
          "gain of correlation with the clean map over the attacked model's", "> 0",
          tables=("relevance", "readings"), figures=("klawikowska_figure_3",)),
    Claim("C6", PAPER, "Images near the other class in the UMAP are the attackable ones",
          "4.1, figs. 5, 6", "", "AUROC of that distance for success", "> 0.65",
          tables=("points", "readings"),
          figures=("klawikowska_figure_4", "signatures_of_the_last_layer")),
    Claim("C7", PAPER, "Attacks leave different maps, so the attack can be identified", "4.1", "",
          "cross-validated accuracy on signatures, three classes", "> 60 %, chance 33 %",
          tables=("points", "readings")),
    Claim("C8", PAPER, "A retrained model ignores the adverse pixel", "fig. 3e", "",
          "relevance in the 5x5 around the pixel, one-pixel-retrained model over baseline",
          "< 50 % in more than half", tables=("relevance", "readings"),
          figures=("klawikowska_figure_3",)),
)  # fmt: skip
