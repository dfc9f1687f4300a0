"""Scores of drift: (clean maps, changed maps) -> numbers."""
