"""Images that attacks add to training sets: their number, and what an attack may spend on them."""

import numpy as np
import pandas as pd

from camdrift.storage import Retrained


def budgets(retrained: Retrained) -> pd.DataFrame:
    """Returns `attack, budget` (in words), `added` and `added_8bit`.

    The last two count training images that an attack changes, and those that are still changed
    after rounding to 256 levels; missing where an attack adds none.
    """
    rows = []
    for attack, own in retrained.facts["settings"].items():
        if "population" in own:
            budget = f"{own['population'] * (own['generations'] + 1)} queries"
        elif "steps" in own:
            budget = f"eps {own['eps']:g}, {own['steps']} steps"
        else:
            budget = f"gain to {own['eps']:g}" if own["gains"] > 1 else f"eps {own['eps']:g}"
        counts = {
            name: retrained.facts.get(name, {}).get(attack, np.nan)
            for name in ("added", "added_8bit")
        }
        rows.append({"attack": attack, "budget": budget} | counts)
    return pd.DataFrame(rows)


def reason_8bit(retrained: Retrained, attack: str) -> str:
    """Returns how many images an attack's model of 8 bit was retrained on, or why there is none.

    '' where the settings ask for no such model.
    """
    least = retrained.facts.get("minimum_8bit")
    if least is None:
        return ""
    rows = retrained.attacks.query("split == 'train' and attack == @attack")
    survivors, right = retrained.facts["added_8bit"][attack], int(rows["right"].sum())
    text = f"{survivors} of {right} training images survive rounding"
    return text if survivors >= least else f"{text}, wanted {least}: not retrained"
