"""Checks params.yaml as a whole; every other stage depends on it."""

import sys

from camdrift import settings, storage
from camdrift.settings import params
from camdrift.storage import files


def main() -> None:
    plan = params.load()
    from camdrift.ops import checks  # imports torch; simpler faults are reported first

    checks.everything(plan)
    files.write_text(storage.CHECKED, "params.yaml is valid\n")


if __name__ == "__main__":
    try:
        main()
    except settings.SettingsError as fault:
        sys.exit(str(fault))
