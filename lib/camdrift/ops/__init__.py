"""What stands around a run: presets, estimates, seeds, summaries, the README's generated parts."""
