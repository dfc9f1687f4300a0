"""What stands around a run: presets, estimates, seeds, summaries, the READMEs' generated parts."""
