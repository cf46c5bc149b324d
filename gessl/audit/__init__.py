"""Reads everything back: audit, trace, diff, replay, crate."""
