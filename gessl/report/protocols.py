"""Protocol cards: what the number of each protocol id means, in two or three sentences."""

import re

NO_DESCRIPTION = "no description"

CARDS = {
    "linear/wmse-v1": (
        "Linear probe on frozen features, as in Ermolov et al. 2021 (W-MSE): one linear layer, Adam, 500 epochs, "
        "batches of 1000, rate falling exponentially from 1e-2 to 1e-6, weight decay 5e-6; the last epoch counts. "
        "Trained on the whole train split without augmentation, scored on the test split."
    ),
    "knn/5nn-euclid": (
        "Five nearest neighbours on frozen features, as in Ermolov et al. 2021: Euclidean distance on features that "
        "are not normalised, unweighted majority, ties to the smallest class number. The bank is the whole train split."
    ),
    "scarce/linear-v1": (
        "Logistic regression (L2, C = 1, fixed) on frozen features of a small, class-balanced part of the train split, "
        "standardised without labels; the mean over several draws of the labelled images. Scored on the test split."
    ),
    "fewshot/proto-v1": (
        "Few-shot episodes on frozen features of the test split: each query goes to the nearest class mean of the "
        "support images (squared Euclidean distance, Snell et al. 2017). 5w1s is 5 classes with 1 labelled image each. "
        "All methods see the same episodes."
    ),
}


DIVERGENCES = {
    "kl": "KL(model ‖ reference), as in the paper,",
    "reverse_kl": "KL(reference ‖ model), against the paper's order,",
    "js": "the Jensen-Shannon divergence",
}
CALIBRATED = " Calibrated: both posteriors' temperatures were fitted on the tasks' validation images."
RAW = " Not calibrated: it also measures how confident the model is."
INVALID = (
    "not valid here: without calibration σ against a fine-tuned encoder mostly measures confidence, and falls where "
    "accuracy falls; it enters no verdict, count or correction. Read -cal instead"
)


def describe(protocol: str) -> str:
    """The card of a protocol id, or that there is none; the ids of σ are read apart."""
    return CARDS.get(protocol) or _describe_sigma(protocol) or NO_DESCRIPTION


def why_invalid(protocol: str) -> str:
    """Why numbers of this protocol are shown, but compared by nobody; empty where they are compared."""
    return INVALID if protocol.startswith("sigma/finetuned") and not protocol.endswith("-cal") else ""


def _describe_sigma(protocol: str) -> str | None:
    found = re.fullmatch(
        r"(?:sigma/onehot-eps(?P<eps>[\d.e-]+)|(?P<kind>sigma|gap)/finetuned(?P<steps>\d+)-lr(?P<rate>[\d.e-]+?))"
        r"(?:-(?P<divergence>kl|reverse_kl|js))?-tau(?P<tau>[\d.e-]+?)(?P<cal>-cal)?",
        protocol,
    )
    if found is None:
        return None
    if found["kind"] == "gap":
        return (
            "Accuracy on the σ suite of the frozen encoder, of the encoder fine-tuned on each task "
            f"({found['steps']} steps, learning rate {found['rate']}), and what fine-tuning gains (the gap). "
            f"Head temperature {found['tau']}."
        )
    reference = (
        f"the task's labels, smoothed by ε = {found['eps']}"
        if found["eps"]
        else f"the encoder fine-tuned on the task ({found['steps']} steps, learning rate {found['rate']})"
    )
    return (
        f"σ: {DIVERGENCES.get(found['divergence'], 'divergence')} in nats, where the reference is {reference}; "
        f"posterior = softmax of cosine similarity to class means at temperature {found['tau']}. sigma_mean averages "
        "over test images, sigma_sum adds them up as the paper's definition does, so it compares equal suites only."
        + (CALIBRATED if found["cal"] else RAW)
        + (f" It is {reason}." if (reason := why_invalid(protocol)) else "")
    )
