"""Tables that steps write and everybody reads: one writer and one reader each."""
