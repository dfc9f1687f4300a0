"""Models: pixels -> logits. Builds, loads, trains, checks and watches them."""
