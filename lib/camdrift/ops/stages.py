"""Stages: names those that report some studies, for `make repro`, which waits for these imports."""

import argparse
import sys
from collections.abc import Sequence

from camdrift.settings import Settings, SettingsError, params


def known(plan: Settings, names: Sequence[str]) -> None:
    """Raises SettingsError if a plan has no study of one of some names; the message lists all."""
    for name in names:
        if name not in plan.studies:
            raise SettingsError(f"no study '{name}'; there are: {', '.join(plan.studies)}")


def reports(names: Sequence[str]) -> list[str]:
    """Returns the stages that report some studies of params.yaml, by default all.

    Raises:
        SettingsError: params.yaml is not valid, or there is no such study.
    """
    plan = params.load()
    known(plan, names)
    return [f"report@{name}" for name in names or plan.studies]


def main() -> None:
    """Prints the names of reporting stages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", nargs="*", help="default: all")
    sys.stdout.write(" ".join(reports(parser.parse_args().study)) + "\n")


if __name__ == "__main__":
    try:
        main()
    except SettingsError as fault:
        sys.exit(str(fault))
