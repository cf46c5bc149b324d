"""What every step writes: its outputs, or nothing, and the record of who made them from what, with what."""
