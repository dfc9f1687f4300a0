"""The claims of tan2023, and the tables and figures that support the verdicts on them.

Its figures 6 and 7 are figures 5 and 6 of renkhoff2022, which defines c_a and c_g: the layer study
shows them. E3 is this study's own, on the cell whose attack keeps the maps.
"""

from camdrift.papers.findings import Claim

PAPER = "tan2023"

CLAIMS = (
    Claim("B1", PAPER, "NoiseCAM detects more accurately than behaviour deviation",
          "abstract, fig. 8a", "", "difference of balanced accuracy", "> 0",
          tables=("rivals", "detectors"), figures=("tan_figure_8a",)),
    Claim("B1b", PAPER, "... and than the cheap baselines", "ours", "",
          "difference of balanced accuracy to the best baseline", "> 0",
          tables=("rivals", "detectors", "transfer"),
          figures=("tan_figure_8a", "roc_curves")),
    Claim("B2", PAPER, "Behaviour deviation misses more and false-alarms less than NoiseCAM",
          "IV-C, fig. 8b", "", "differences of TPR and TNR", "both signs as claimed",
          tables=("detectors",), figures=("tan_figure_8b",)),
    Claim("B3", PAPER, "Its TPR falls slightly from 25 % to 400 %", "IV-C", "",
          "slope of TPR in log strength", "< 0", tables=("detectors",),
          figures=("tan_figure_8b",)),
    Claim("B4", PAPER, "NoiseCAM does not depend on the strength", "IV-C", "",
          "range of TPR over strengths", "< 5 points", tables=("detectors",),
          figures=("tan_figure_8b",)),
    Claim("B5", PAPER, "NoiseCAM is blank for noisy and clean images", "III-E, fig. 5", "",
          "share of maps without a cluster; their mass over that of adversarials",
          "> 90 % and < 10 %", tables=("blank",), figures=("tan_figure_5",)),
    Claim("B6", PAPER, "block5_conv1 is the most sensitive layer to both", "IV-B", "",
          "rank of normalised c_a and c_g among the layers", "lowest in both",
          tables=("switches", "layers")),
    Claim("B7", PAPER, "A blur of radius 1.5 breaks correct predictions, too", "II, fig. 1", "",
          "accuracy lost on clean and noisy images", "> 10 points", tables=("blur",),
          figures=("tan_figure_1",)),
    Claim("B8", PAPER, "A detector withstands an adaptive attack", "ours", "",
          "AUROC under the adaptive attack", "> 0.7", tables=("adaptive",),
          figures=("auroc_under_adaptive_attack",)),
    Claim("E3", PAPER, "Drift alone cannot separate a map-keeping attack from noise", "ours", "",
          "AUROC of one image's drift features, map-keeping against noise of its size",
          "< 0.7, of each detector", tables=("detectors",)),
)  # fmt: skip
