"""Names of features that detectors look for, apart from the code that measures them by torch."""

# What is told of each layer, see `profile`: `<name>_<layer>`.
PROFILE = ("peak", "spread", "activity")
# Readings of NoiseCAM, see `noisecam`.
READINGS = ("printed_logits", "printed_softmax", "code_logits", "code_softmax")
