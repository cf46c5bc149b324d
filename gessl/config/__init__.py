"""Experiment files: read, validated, expanded to runs."""

from gessl.config.experiment import Experiment, PlannedScience, Resources, schema
from gessl.config.values import load_method, load_references

__all__ = ["Experiment", "PlannedScience", "Resources", "load_method", "load_references", "schema"]
