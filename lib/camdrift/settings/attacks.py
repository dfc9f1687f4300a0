"""Attacks that are part of another setting: training's, detection's."""

from camdrift.settings.section import Count, Section, Share


class Descent(Section):
    """An attack by steps: largest change of a pixel value, size and number of the steps."""

    eps: Share
    step: Share
    steps: Count
