"""Renkhoff et al. 2022: drift of the maps of every layer, by attack and by noise."""
