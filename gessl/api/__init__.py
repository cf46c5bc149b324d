"""The functions for people's own Python code, one a file (docs/python.md): thin, over what the pipeline uses."""
