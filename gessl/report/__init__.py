"""The σ-report: tables, figures and one page from the files of finished runs."""
