"""`gessl register`: what is frozen, what is refused, and that a study changes no run."""

import copy
import json
from pathlib import Path

import pytest
import yaml

from gessl.cli import main
from gessl.errors import UserError
from gessl.grid.batch import ExperimentBatch
from gessl.grid.experiment import Experiment
from gessl.grid.register import register, require_registered
from gessl.layout import pin, registration_dir, run_dir, scores_dir
from gessl.records.record import read_record
from gessl.records.step import Step
from gessl.registration.seal import registration_file
from gessl.registration.study import Study
from gessl.tables.scores import COLUMNS
from tests.conftest import SMALL

pytestmark = pytest.mark.usefixtures("unprepared")
FILE = Path("study.yaml")
HYPOTHESIS = {
    "name": "as good", "says": "GeSSL is as good.", "treatment": "gessl", "control": "base",
    "measure": {"protocol": "knn/5nn-euclid", "target": "digits"}, "equal_within": 2.0,
    "pilot": {"sd": 0.6, "source": "three seeds"},
}  # fmt: skip


def study(**changes: object) -> dict:
    return {"question": "Is it as good?", "hypotheses": [{**copy.deepcopy(HYPOTHESIS), **changes}]}


def experiment(of: dict | None = None, **changes: object) -> dict:
    return {**copy.deepcopy(SMALL), "seeds": [0, 1, 2, 3], "study": of or study(), **changes}


def write(tree: dict) -> Path:
    FILE.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return FILE


def test_what_is_frozen() -> None:
    file, lines = register(write(experiment()))
    found, whole = json.loads(file.read_text(encoding="utf-8")), Experiment.load(FILE)
    assert found["runs"] == [cell.id for cell in whole.runs()]
    assert found["seeds"] == [0, 1, 2, 3]
    assert found["study"]["hypotheses"][0]["method"] == "simclr", "the only one"
    assert found["study"]["hypotheses"][0]["dataset"] == "digits"
    assert found["pairs"] == {"as good": 4}
    assert [each["protocol"] for each in found["evaluation"]][:2] == ["linear/wmse-v1", "knn/5nn-euclid"]
    record = read_record(registration_dir("small"))
    assert record is not None
    assert [entry["path"] for entry in record["inputs"]] == [pin("digits").as_posix()]
    assert record["config"] == found
    assert lines == [
        "as good: GeSSL is as good. (knn/5nn-euclid on digits; 4 of 4 pairs of seeds suffice; refuted if the difference"
        " is shown to be more than 2, either way)"
    ]


def test_a_study_changes_no_run() -> None:
    plain = experiment()
    del plain["study"]
    ids = [[cell.id for cell in Experiment.parse(tree, "here").runs()] for tree in (plain, experiment())]
    assert ids[0] == ids[1]


def test_a_registration_that_was_cut_short_is_written_again() -> None:
    """A kill between the two files leaves one without a record, which nothing would accept."""
    file, _ = register(write(experiment()))
    record = registration_dir("small") / "record.json"
    record.unlink()
    with pytest.raises(UserError, match=r"registration\.json: has no record, .* gessl register FILE writes it again"):
        require_registered(ExperimentBatch.parse(experiment(), "here"))
    register(FILE)
    assert record.is_file() and file.is_file()
    require_registered(ExperimentBatch.parse(experiment(), "here"))


def test_how_many_pairs_it_takes_may_be_computed_otherwise_later(monkeypatch: pytest.MonkeyPatch) -> None:
    register(write(experiment()))
    monkeypatch.setattr(Study, "pairs", lambda self: {"as good": 3})
    require_registered(ExperimentBatch.parse(experiment(), "here"))


def test_registering_twice_leaves_the_first() -> None:
    file, _ = register(write(experiment()))
    before = file.stat().st_ino, (registration_dir("small") / "record.json").read_bytes()
    register(FILE)
    assert before == (file.stat().st_ino, (registration_dir("small") / "record.json").read_bytes())


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (experiment(study(equal_within=3.0)), "study"),
        (experiment(seeds=[0, 1, 2, 4]), "seeds, runs"),
        (experiment(evaluation=[{"protocol": "knn/5nn-euclid"}]), "evaluation"),
        (experiment(recipe={"train": {"steps": 13, "batch": 32, "warmup": 2}}), "runs"),
    ],
)
def test_what_was_registered_may_not_change(changed: dict, what: str) -> None:
    register(write(experiment()))
    before = registration_file("small").read_bytes()
    for work in (lambda: register(write(changed)), lambda: require_registered(ExperimentBatch.parse(changed, "here"))):
        with pytest.raises(UserError, match=rf"was changed after it was registered \({what}\); undo that, or"):
            work()
    assert registration_file("small").read_bytes() == before
    require_registered(ExperimentBatch.parse(experiment(title="Another title", efficiency={"threads": 2}), "here"))


def test_a_study_that_is_not_registered_does_not_run() -> None:
    with pytest.raises(UserError, match="small: has a study that is not registered yet; gessl register FILE"):
        require_registered(ExperimentBatch.parse(experiment(), "here"))


def test_after_a_score_it_is_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    write(experiment())
    run = Experiment.load(FILE).runs()[-1].id
    with Step("evaluate", f"{run}/digits/knn__5nn_euclid", scores_dir(run, "digits") / "knn__5nn_euclid", inputs=[],
              config={}) as step:  # fmt: skip
        step.path("scores.csv").write_text("", encoding="utf-8")
    assert main(["register", str(FILE)]) == 2
    said = capsys.readouterr().err
    assert f"1 of its 8 runs are scored already ({run}), so it is too late" in said
    assert len(said.splitlines()) == 1
    assert not registration_dir("small").exists()


def test_training_alone_is_no_score() -> None:
    run = Experiment.load(write(experiment())).runs()[0].id
    with Step("pretrain", run, run_dir(run), inputs=[], config={}) as step:
        step.path("config.json").write_text("{}", encoding="utf-8")
    register(FILE)


def test_too_few_seeds_are_refused_all_at_once() -> None:
    wide = [{**HYPOTHESIS, "name": name, "pilot": {"sd": sd, "source": "x"}} for name, sd in (("a", 2.0), ("b", 900.0))]
    with pytest.raises(UserError) as error:
        register(write(experiment({"question": "Is it?", "hypotheses": wide})))
    first, second = error.value.args
    assert first.startswith("study.yaml: study: a: if it is true, 4 seeds confirm it with probability 0.0")
    assert "0.8 takes 16. Give more seeds" in first or "0.8 takes" in first
    assert "0.8 takes too many" in second
    assert not registration_dir("small").exists()
    register(write(experiment({"question": "Is it?", "hypotheses": wide[:1], "power": 0.01})))


def test_an_experiment_without_a_study() -> None:
    plain = experiment()
    del plain["study"]
    with pytest.raises(UserError, match=r"study\.yaml: has no `study`, so there is nothing to register"):
        register(write(plain))


@pytest.mark.parametrize(
    ("of", "message"),
    [
        (study(treatment="gesl"), "study.hypotheses.0.treatment: unknown variant 'gesl'; did you mean 'gessl'"),
        (study(method="byol"), "study.hypotheses.0.method: unknown method 'byol'"),
        (study(dataset="glyphs"), "study.hypotheses.0.dataset: unknown dataset 'glyphs'"),
        (
            study(measure={"protocol": "knn/5nn-euclid", "target": "glyphs"}),
            "unknown data set that runs are scored on 'glyphs'",
        ),
        (
            study(measure={"protocol": "knn/5nn-cosine", "target": "digits"}),
            "unknown score under `evaluation` 'knn/5nn-cosine'",
        ),
        (study(equal_within=-1), "study.hypotheses.0.equal_within: must be a number, above 0"),
        (study(better_by=1.0), "give better_by or equal_within, not both"),
        (study(nonsense=1), "nonsense"),
        ({"question": "Is it?"}, "study.hypotheses: is missing"),
    ],
)
def test_hypotheses_about_what_is_not_there(of: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        Experiment.parse(experiment(of), "here")
    assert any(message in line for line in error.value.args), error.value.args


def test_of_several_methods_one_is_named() -> None:
    two = {"simclr": {"hidden": 16, "dim": 8}, "byol": {}}
    with pytest.raises(UserError, match="as good: name its method, for the experiment has several: simclr, byol"):
        Experiment.parse(experiment(methods=two), "here")
    found = Experiment.parse(experiment(study(method="byol"), methods=two), "here").study
    assert found is not None and found.hypotheses[0].method == "byol"


def test_two_variants_of_the_same_runs_are_no_hypothesis() -> None:
    tree = experiment(study(treatment="again", control="gessl"))
    tree["variants"]["again"] = copy.deepcopy(tree["variants"]["gessl"])
    with pytest.raises(
        UserError, match=r"study\.hypotheses\.0: again and gessl are the same runs, so there is nothing"
    ):
        Experiment.parse(tree, "here")


def test_a_score_that_nobody_compares_is_no_measure() -> None:
    best = {"protocol": "semi/simclr-10pct-best", "target": "digits"}
    with pytest.raises(UserError, match="semi/simclr-10pct-best is shown, but compared by nobody: "):
        Experiment.parse(experiment(study(measure=best), evaluation=["semi/simclr-10pct"]), "here")


def test_a_task_that_is_not_reported_is_refused_where_scores_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    register(write(experiment(name="first")))
    assert "knn/5nn-euclid has not scored anything on digits here" in capsys.readouterr().err
    folder = scores_dir("digits-pixels-s0-0123456789abcdef", "digits") / "knn__5nn_euclid"
    with Step("evaluate", "x/digits/knn__5nn_euclid", folder, inputs=[], config={}) as step:
        row = {**dict.fromkeys(COLUMNS, ""), "protocol": "knn/5nn-euclid", "task": "all", "metric": "accuracy"}
        text = ",".join(COLUMNS) + "\n" + ",".join(row[column] for column in COLUMNS) + "\n"
        step.path("scores.csv").write_text(text, encoding="utf-8")
    misspelt = {"protocol": "knn/5nn-euclid", "target": "digits", "task": "al"}
    with pytest.raises(UserError, match="measure: unknown task and metric 'al accuracy'; did you mean 'all accuracy'"):
        register(write(experiment(study(measure=misspelt))))
    assert not registration_dir("small").exists()
    register(write(experiment()))
    assert capsys.readouterr().err == ""


def test_the_split_of_the_data_may_not_change_either(project: Path) -> None:
    register(write(experiment()))
    entry = Path("config/datasets/digits.yaml")
    tree = yaml.safe_load(entry.read_text(encoding="utf-8"))
    tree["split"]["seed"] += 1
    entry.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(UserError, match=r"was changed after it was registered \(data\)"):
        require_registered(ExperimentBatch.parse(experiment(), "here"))
