"""The claims of chakraborty2022, and the tables and figures of a study that bear them."""

from camdrift.papers.findings import Claim

PAPER = "chakraborty2022"

CLAIMS = (
    Claim("D1", PAPER, "MOD grows with eps in every model", "table 3",
          "mean 0.127 to 0.251; Inception falls at the last",
          "whether MOD rises with eps, resampled", "it does in all five models", tables=("mod",),
          figures=("chakraborty_table_3",)),
    Claim("D2", PAPER, "Wide networks lose more accuracy than deep ones", "tables 1, 2",
          "63 and 36 points against 2, 20 and 29 (table 1)",
          "accuracy lost at the largest eps, wide minus deep", "> 10 points", tables=("accuracy",),
          figures=("chakraborty_table_1",)),
    Claim("D3", PAPER, "At a similar shift deep networks lose less", "4.4", "",
          "accuracy lost at matched MOD, wide minus deep", "> 0", tables=("mod", "accuracy"),
          figures=("accuracy_lost_by_mod",)),
    Claim("D4", PAPER, "VGG16 is the most stable", "4.4, fig. 4",
          "MOD 0.127, the others 0.262 to 0.296", "rank of MOD at the largest eps, and of VID",
          "lowest in both", tables=("mod", "vid"),
          figures=("chakraborty_table_3", "chakraborty_figure_4_vid")),
    Claim("D5", PAPER, "Attacks made on ResNet50 carry over to all", "4.2", "",
          "accuracy lost beyond matched noise, by other model", "> 5 points each",
          tables=("accuracy",), figures=("accuracy_lost_by_source",)),
    Claim("D6", PAPER, "The shift explains why models fail", "4.4, 5", "",
          "Spearman of MOD and accuracy lost; MOD of failed minus not failed images",
          "> 0.6 and > 0", tables=("mod", "accuracy"),
          figures=("mod_by_class_kept", "accuracy_lost_by_mod")),
    Claim("D7", PAPER, "Preprocessing helps", "tables 1, 2", "", "paired difference of accuracy",
          "> 0 at eps >= 0.05", tables=("pairs",), figures=("accuracy_gain_of_preprocessing",)),
    Claim("D8", PAPER, "The shift under a transferred attack is that under noise of its size",
          "ours, seen on tiles", "", "(MOD under the attack minus MOD under noise) / MOD under it",
          "within 10 %, by two one-sided tests, in every other network", tables=("mod", "controls"),
          figures=("mod_of_controls",)),
)  # fmt: skip

# Ids of claims by what they are judged on: classes alone, or maps.
ON_CLASSES = ("D2", "D5", "D7")
ON_MAPS = ("D1", "D3", "D4", "D6", "D8")
