"""Encoders that were trained elsewhere: entries (`config/encoders/<name>.yaml`), their weights files, and the networks.

How to add one: docs/encoders.md. Nothing here downloads anything.
"""

from gessl.encoders.entry import Entry, content, content_hash, encoder, encoder_names
from gessl.encoders.load import ForeignEncoder, load

__all__ = ["Entry", "ForeignEncoder", "content", "content_hash", "encoder", "encoder_names", "load"]
