"""The four papers: a package each with its tables, figures and verdicts, and what they share."""
