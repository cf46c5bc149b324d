"""Hypotheses that are written down before they are tested, and the seal on the test data until all runs are there."""
