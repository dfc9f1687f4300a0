"""Explanations: class-activation maps of all layers, other methods, relevance by LRP."""
