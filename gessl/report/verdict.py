"""When a difference counts as decided: the one rule for bold, colour, counts and sentences."""

from itertools import count

from gessl.statistics import SIGNIFICANT, PairedDifference, least_p

BETTER, WORSE, OPEN, UNJUDGED = "better", "worse", "open", "unjudged"
DECIDED = (BETTER, WORSE)
# With fewer pairs of seeds no outcome whatever could make the sign-flip test significant.
LEAST_PAIRS = next(n for n in count(1) if least_p(n) <= SIGNIFICANT)

RULE = (
    f"Ahead or behind: the 95 % interval of the paired difference excludes zero, and the sign-flip test gives "
    f"p ≤ {SIGNIFICANT}. Not judged: fewer than {LEAST_PAIRS} pairs of seeds, with which no such p is attainable."
)


def verdict(found: PairedDifference, better: str) -> str:
    """`better` or `worse` where interval and test agree that a difference is not zero, `open` where they do not.

    `unjudged` with fewer than `LEAST_PAIRS` pairs.

    Args:
        found: the difference, with an interval no narrower than what the test items allow.
        better: `higher` or `lower`.
    """
    if found.n < LEAST_PAIRS or found.lo is None or found.hi is None:
        return UNJUDGED
    if found.lo <= 0 <= found.hi or found.p > SIGNIFICANT:
        return OPEN
    return BETTER if (found.lo > 0) == (better == "higher") else WORSE
