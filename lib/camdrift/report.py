"""A study's report: one HTML page that reads without a network."""

import html

import pandas as pd
from plotly.offline import get_plotlyjs

from camdrift import figures, tables
from camdrift.figures import Figure
from camdrift.settings import StatisticsSettings, Study
from camdrift.tables import Tables

STYLE = """
body { font: 16px/1.55 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
table { border-collapse: collapse; margin: 1rem 0; font-size: 0.92rem; display: block;
  overflow-x: auto; }
th, td { padding: 0.3rem 0.7rem; border-bottom: 1px solid #ccc; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; } figcaption { color: #444; font-size: 0.92rem; }
.flag { border-left: 4px solid #D55E00; padding-left: 0.7rem; }
"""


def headline(made: Tables, chosen: StatisticsSettings) -> pd.DataFrame:
    """Returns the headline table: a row a cell, texts for people.

    Excess drift is the mean over layers of cosine under matched noise minus cosine under attack,
    at strength 100 %, with its interval.
    """
    rows = []
    for _, attack in made["attacks"].iterrows():
        cell = attack["cell"]
        rule = made["compromised"].query(
            "cell == @cell and strength == 1 and group == 'success' and target == 'own_top1'"
        )
        shares = rule.groupby("arm")["share"].mean()
        rows.append(
            {
                "cell": cell,
                "set": attack["set"],
                "images": attack["images"],
                "flipped": f"{attack['success_rate']:.0%}",
                "flipped after 8-bit": f"{attack['success_rate_8bit']:.0%}",
                "excess, flipped, own class": _excess(made, cell, "success", "own_top1"),
                "excess, flipped, clean class": _excess(made, cell, "success", "seed_class"),
                "excess, not flipped": _excess(made, cell, "failure", "own_top1"),
                "layers compromised: attack / noise": (
                    f"{shares['attack']:.0%} / {shares['noise']:.0%}" if len(shares) == 2 else "-"
                ),
                "flags": "; ".join(tables.flags(made, cell, chosen)) or "none",
            }
        )
    return pd.DataFrame(rows)


def _excess(made: Tables, cell: str, group: str, target: str) -> str:
    found = made["excess"].query(
        "cell == @cell and group == @group and target == @target and strength == 1 "
        "and layer == 'mean'"
    )
    if not len(found) or pd.isna(found["mean"].iloc[0]):
        return "-"
    row = found.iloc[0]
    if pd.isna(row["low"]):
        return f"{row['mean']:.3f} (one source: no interval)"
    return f"{row['mean']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def page(
    name: str,
    study: Study,
    made: Tables,
    drawn: list[Figure],
    chosen: StatisticsSettings,
) -> str:
    """Returns the report's HTML; class and file names in it are text, never markup."""
    parts = [
        f"<h1>{html.escape(study.title)}</h1>",
        f"<p>Study <code>{html.escape(name)}</code>. Headline cell: "
        f"<code>{html.escape(study.headline)}</code>. Numbers rest on this study's own images and "
        "model, not on those of any paper.</p>",
        headline(made, chosen).to_html(index=False, border=0),
        "<p>Excess: cosine similarity to the clean map under matched noise minus that under "
        "attack, at strength 100 %, mean over decided layers, with a "
        f"{chosen.confidence:.0%} interval resampled by source picture. Layers compromised: by "
        "the paper's rule, on successfully attacked images, beside what the rule says of a "
        "further draw of noise.</p>",
    ]
    for cell in made["attacks"]["cell"]:
        for text in tables.flags(made, cell, chosen):
            parts.append(f'<p class="flag">{html.escape(f"{cell}: {text}")}</p>')
    for figure in drawn:
        # A fixed div id keeps the bytes the same from run to run.
        chart = figures.plotly(figure).to_html(
            full_html=False, include_plotlyjs=False, div_id=figure.name
        )
        caption = html.escape(figure.caption)
        parts.append(f"<figure>{chart}<figcaption>{caption}</figcaption></figure>")
    for table, rows in (("Attacks", made["attacks"]), ("Noise against attack", made["noise"])):
        parts += [f"<h2>{table}</h2>", rows.to_html(index=False, border=0)]
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(study.title)}</title><style>{STYLE}</style>"
        f"<script>{get_plotlyjs()}</script></head><body>{body}</body></html>\n"
    )
