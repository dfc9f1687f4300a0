"""Models: pixels -> logits. Build, load, train and check them; where their maps are taken."""
