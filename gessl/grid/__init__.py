"""Experiments and batches: read, validated, expanded to runs; what they ask for, and where they stand."""
