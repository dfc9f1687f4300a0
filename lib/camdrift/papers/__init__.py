"""The papers: one package each with tables, figures and verdicts, and shared modules."""
