"""Who made what, from what, with what: records, audit, trace."""
