"""gessl: universality of self-supervised learning (GeSSL, arXiv 2405.01053), from raw data to an audited report."""

__version__ = "0.1.0"
