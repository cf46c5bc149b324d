"""Experiment files: read, validated, expanded to runs; several of them as one batch."""

from gessl.config.batch import Batch
from gessl.config.experiment import Experiment, schema
from gessl.config.grid import PlannedScience
from gessl.config.values import load_method, load_references

__all__ = ["Batch", "Experiment", "PlannedScience", "load_method", "load_references", "schema"]
