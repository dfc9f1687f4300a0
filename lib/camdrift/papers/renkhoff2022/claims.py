"""The claims of renkhoff2022, with the tables and figures of a study that support them.

c_a, c_g and c_u are the cosine of a layer's map to its clean map under attack, under matched noise,
and for unrelated clean images; e = c_g - c_a is the excess, paired by image. Unless stated
otherwise: Grad-CAM, successful adversarials, strength 100 %.
"""

from camdrift.papers.findings import Claim

PAPER = "renkhoff2022"

CLAIMS = (
    Claim("A1", PAPER, "An attack moves the maps further than the same amount of noise",
          "abstract, IV-C", "", "mean e by layer", "> 0 after Holm in every layer",
          tables=("excess",), figures=("excess_by_layer",)),
    Claim("A1f", PAPER, "... also where the class did not flip", "ours", "",
          "mean e by layer, images not flipped", "> 0 after Holm in every layer",
          tables=("excess",), figures=("excess_by_layer",)),
    Claim("A2", PAPER, "Similarity under attack has a lower mean and a greater variance",
          "IV-C, fig. 4", "", "mean e; ratio of variances, attack over noise",
          "> 0 and > 1 in every layer", tables=("similarity",),
          figures=("renkhoff_figure_4a", "renkhoff_figure_4b")),
    Claim("A3", PAPER, "Layers 4-1 and 5-1 are the most vulnerable", "abstract, IV-C", "",
          "rank of e / (1 - c_u) among the layers", "both in the top 3 in 90 % of resamples",
          tables=("excess", "controls"), figures=("excess_by_layer",)),
    Claim("A4", PAPER, "Deeper layers deviate more", "IV-D", "",
          "Spearman of depth and (c_a - c_u) / (1 - c_u)", "< -0.5, interval below 0",
          tables=("similarity", "controls"), figures=("excess_by_layer",)),
    Claim("A5", PAPER, "Strengths 0.5 and 1 give almost the same curve", "IV-D", "",
          "largest difference of mean c_a in a layer", "< 0.01", tables=("curves",),
          figures=("renkhoff_figure_5a",)),
    Claim("A6", PAPER, "Strengths 0.25, 2 and 4 give very similar curves", "IV-D", "",
          "largest pairwise difference of mean c_a in a layer", "< 0.03", tables=("curves",),
          figures=("renkhoff_figure_5a",)),
    Claim("A7", PAPER, "At strength 0.25 the deviation is still significant", "IV-D", "",
          "mean e at 0.25 by layer", "> 0 after Holm in 10 layers", tables=("excess",),
          figures=("renkhoff_figure_5a", "renkhoff_figure_5b")),
    Claim("A8", PAPER, "An attack deviates more than noise at every strength", "IV-D", "",
          "mean e over layers, by strength", "> 0 at all five", tables=("excess",),
          figures=("excess_by_strength",)),
    Claim("A9", PAPER, "At the lowest strength, any layer is compromised with about 40 % chance",
          "IV-E, fig. 6", "40 %", "compromised share at 0.25, mean over layers",
          "within 10 points of 40 %", tables=("compromised",), figures=("renkhoff_figure_6",)),
    Claim("A10", PAPER, "The chance reaches 80 % above strength 2 and below 0.25", "IV-E, fig. 6",
          "80 %", "compromised share at 0.25, 2 and 4, the least", ">= 70 % at each",
          tables=("compromised",), figures=("renkhoff_figure_6",)),
    Claim("A11", PAPER, "A few compromised layers are enough to mislead", "abstract, fig. 7", "",
          "share of images with 3 compromised layers or fewer, attack minus noise",
          "> 5 %, interval above 0", tables=("counts",), figures=("renkhoff_figure_7",)),
    Claim("A12", PAPER, "Some adversarials compromise all layers, more so when strong", "IV-E", "",
          "share of images with all layers compromised; its slope in log2 strength",
          "> 1 % and > 0", tables=("counts",), figures=("renkhoff_figure_7",)),
    Claim("A13", PAPER, "Coverage grows slightly faster under attack than under noise",
          "IV-B, fig. 2a", "0.456 / 0.442 at the end (public code)",
          "mean over seeds of coverage, attack minus noise", "> 0", tables=("coverage",),
          figures=("renkhoff_figure_2a",)),
    Claim("A14", PAPER, "Strength has a slight effect on coverage, weaker grows slower",
          "IV-B, fig. 2b", "0.444 to 0.459 at the end (public code)",
          "Spearman of strength and final coverage; its range", "> 0.5 and < 0.05",
          tables=("coverage",), figures=("renkhoff_figure_2b",)),
    Claim("A15", PAPER, "An adversarial is found for about half of the images", "IV-A", "48 %",
          "share of seeds with an adversarial", "within 10 points of 48 %, ImageNet only",
          tables=("attacks",)),
)  # fmt: skip
