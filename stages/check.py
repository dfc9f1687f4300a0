"""Checks params.yaml as a whole; every other stage depends on it. Digests the user's modules."""

import shutil
import sys

from camdrift import settings, storage
from camdrift.settings import imports, params
from camdrift.storage import files


def main() -> None:
    plan = params.load()
    from camdrift.ops import checks  # imports torch; simpler faults are reported first

    checks.everything(plan)
    files.write_text(storage.CHECKED, "params.yaml is valid\n")
    # Sets and models depend on these, so that an edit rebuilds those alone that use the module.
    shutil.rmtree(storage.MODULES, ignore_errors=True)
    named = {storage.module("models", name): m.architecture for name, m in plan.models.items()}
    named |= {
        storage.module("sets", name): (of.preprocessing and of.preprocessing.align) or ""
        for name, of in plan.sets.items()
    }
    for path, function in named.items():
        files.write_text(path, f"{imports.digest(function) or 'no module'}\n")


if __name__ == "__main__":
    try:
        main()
    except settings.SettingsError as fault:
        sys.exit(str(fault))
