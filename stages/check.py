"""Checks params.yaml as a whole; every other stage depends on it."""

import sys

from camdrift import settings, storage
from camdrift.ops import checks
from camdrift.settings import params
from camdrift.storage import files


def main() -> None:
    checks.everything(params.load())
    files.write_text(storage.CHECKED, "params.yaml is valid\n")


if __name__ == "__main__":
    try:
        main()
    except settings.SettingsError as fault:
        sys.exit(str(fault))
