"""Attacks inside another section of the settings: training's, detection's."""

from camdrift.settings.section import Count, Section, Share


class Descent(Section):
    """An attack in steps: the largest change of a pixel value, the size and number of steps."""

    eps: Share
    step: Share
    steps: Count
