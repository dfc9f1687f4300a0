"""Chakraborty et al. 2022: attacks that are transferred to other networks."""
