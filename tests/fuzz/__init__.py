"""Nonsense of all kinds, drawn with fixed seeds: experiment files, lineage records, whole trees."""
