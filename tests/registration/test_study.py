"""What may be written down."""

import dataclasses

import pytest

from gessl.files import as_json
from gessl.power import power_of_equivalence, power_of_superiority
from gessl.registration.study import Hypothesis, Measure, Pilot, Study
from gessl.settings import SettingsError
from gessl.typed import typed

GIVEN = {
    "name": "h", "says": "It holds.", "treatment": "gessl", "control": "base", "measure": Measure("a/b-v1", "digits"),
    "pilot": Pilot(0.5, "three seeds"), "better_by": 1.0,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"equal_within": 1.0}, "give better_by or equal_within, not both"),
        ({"better_by": None}, "give better_by or equal_within$"),
        ({"control": "gessl"}, "compared with itself"),
        ({"says": "two\nlines"}, "says: must be one line"),
        ({"better_by": 0.0}, "better_by: must be a number, above 0"),
        ({"better_by": float("nan")}, "better_by: must be a number"),
    ],
)
def test_contradictions_are_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        Hypothesis(**{**GIVEN, **change})


def test_a_study_has_hypotheses_of_different_names():
    one = Hypothesis(**GIVEN)
    with pytest.raises(SettingsError, match="hypotheses: must not be empty"):
        Study("Why?", ())
    with pytest.raises(SettingsError, match="names one of them twice"):
        Study("Why?", (one, one))


def test_it_comes_back_from_a_spec():
    whole = Study(
        "Why?", (Hypothesis(**GIVEN), Hypothesis(**{**GIVEN, "name": "i", "better_by": None, "equal_within": 2}))
    )
    assert typed(Study, as_json(dataclasses.asdict(whole))) == whole


def test_pairs_are_the_least_with_the_power_at_the_strictest_level():
    better, equal = Hypothesis(**GIVEN), Hypothesis(**{**GIVEN, "name": "i", "better_by": None, "equal_within": 1.0})
    whole = Study("Why?", (better, equal), power=0.9)
    assert whole.level == 0.0125
    for one, power in ((better, power_of_superiority), (equal, power_of_equivalence)):
        n = whole.pairs()[one.name]
        assert power(n, 2.0, 0.0125) >= 0.9 > power(n - 1, 2.0, 0.0125)


def test_where_the_pilot_saw_no_spread_two_pairs_do():
    exact = Hypothesis(**{**GIVEN, "pilot": Pilot(0.0, "the same bits")})
    assert Study("Why?", (exact,)).pairs() == {"h": 2}


def test_what_would_refute_is_said():
    assert Hypothesis(**GIVEN).refuted_if == "refuted if the difference is shown to be less than 1"
