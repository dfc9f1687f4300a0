"""Klawikowska et al. 2020: signatures of relevance maps, and adversarial retraining."""
