"""Tan et al. 2023, NoiseCAM: detectors of attacked images, and their evaluation."""
