"""Writes a study's records, tables, figures, report, README and settings; prints its results."""

import sys

from camdrift.analysis import results
from camdrift.papers import interface, outputs
from camdrift.pipeline import run


def main(stage: run.Stage) -> None:
    paper = interface.paper(stage.settings.studies[stage.key].paper)
    settings = results.study_settings(stage.key, stage.settings, paper.READS)
    outputs.record(stage.key, settings)
    sys.stdout.write(outputs.write(stage.key, settings))


if __name__ == "__main__":
    run.stage(main)
