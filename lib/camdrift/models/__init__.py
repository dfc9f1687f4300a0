"""Models: pixels -> logits. Builds, loads, trains and checks them, and taps them for their maps."""
