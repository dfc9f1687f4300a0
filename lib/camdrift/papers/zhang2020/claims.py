"""The claims on attacks that aim at the maps, and the tables and figures that support the verdicts.

They are this study's own, set before any result. zhang2020 changes the class and keeps the map of
one layer, and asks whether people see the difference; here the measure is noise of the same size.
E3, on detectors, is one of tan2023's.
"""

from camdrift.papers.findings import Claim

PAPER = "zhang2020"

CLAIMS = (
    Claim("E1", PAPER, "The class can be flipped with no more drift than matched noise", "ours", "",
          "share of images that map-keeping flips at c_a >= c_g of its own noise, last conv layer, "
          "maps of each image's own class", "> 50 %", tables=("by_layer", "drift"),
          figures=("drift_against_flip", "map_drift_own_class")),
    Claim("E2", PAPER, "Maps can drift as far as under DLFuzz with no flip", "ours", "",
          "drift of map-moving, not flipped, minus that of DLFuzz, within whose L2 it is on each "
          "image, mean over layers",
          "> 0", tables=("by_layer", "drift"),
          figures=("drift_against_flip", "map_drift_clean_class")),
)  # fmt: skip
