"""The evaluation of detectors: images and splits, features, adaptive attack, accuracy."""
