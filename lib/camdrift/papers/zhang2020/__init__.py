"""Attacks that aim at the maps: Zhang et al. 2020, "Interpretable Deep Learning under Fire"."""
