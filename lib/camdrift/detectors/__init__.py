"""Detectors: features of one image, rules on them, and their evaluation.

A score (`camdrift.scores`) needs the clean map and so is no feature: a detector works on features
only, and cannot see the clean image by accident. One module a group of features; `measure` joins
them.
"""
