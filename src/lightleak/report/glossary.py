"""What each metric means, for readers who meet it for the first time."""

from dataclasses import replace

from lightleak.errors import UserError
from lightleak.report.results import Column

ACCURACY = Column(
    "accuracy",
    "natural accuracy",
    "how often the target is right on real test images of its people",
    rate=True,
    explanation="What the model is for. A defence that costs much of it has not solved the problem: a target that "
    "knows nothing leaks nothing.",
)

# What is said of a target itself, beside its accuracy.
OF_TARGETS = {
    "accuracy": ACCURACY,
    "epsilon": Column(
        "epsilon",
        "epsilon",
        "what differential privacy guarantees for one training image",
        explanation="The privacy loss of training with DP-SGD: with or without any one image, each outcome is at most "
        "e to the epsilon times as likely, but for a probability of delta. It speaks of single images; someone with k "
        "of them is protected by k times epsilon. Values far above 10 guarantee little. Other defences guarantee "
        "nothing.",
    ),
    "training": Column(
        "training",
        "training time",
        "over the undefended network's",
        explanation="How many times as long training takes as without the defence, measured in turn in one process, "
        "public training included where a defence begins with it.",
    ),
    "answering": Column("answering", "inference time", "over the undefended network's"),
    "parameters": Column("parameters", "parameters", "over the undefended network's"),
    "published accuracy": Column(
        "published accuracy", "published accuracy", "natural accuracy in the paper", rate=True
    ),
    "published hits@1": Column("published hits@1", "published AttAcc@1", "attack accuracy in the paper", rate=True),
}

EXPLANATIONS = {
    "hits@1": "Attack accuracy as papers report it: a second classifier, the judge, trained on other images of the "
    "same people, names each reconstruction, and we count how often it names the right person. The judge must choose "
    "among the private people, so anything that is nearest to the right one counts, also if it resembles nobody. "
    "Among few people this flatters the attack.",
    "hits@5": "As AttAcc@1, but the right person need only be among the judge's five best guesses. With ten people, "
    "half of all guesses succeed.",
    "confidence": "The attacked model's own belief in the reconstruction. The attack raises it on purpose, so it says "
    "how well the optimisation went, not how much was found.",
    "verified": "Biometric verification against the truth: the identity factors of the reconstruction are compared "
    "with the person's, and it passes if they are closer than all but one in a thousand pairs of random people. This "
    "does not depend on how many people the target knows, and it is the strictest number here.",
    "judge_only": "Reconstructions that the judge accepts and verification does not: false positives behind a high "
    "attack accuracy.",
    "true@1": "Among the private people, the reconstruction's identity factors are nearest to the right person's. Like "
    "AttAcc@1 it is a choice among few people, but made by the truth instead of a network.",
    "true@5": "As true match @1, with five guesses.",
    "family@1": "Where private people look alike, in families: the nearest of the private people is the person or a "
    "look-alike. To score here, the family is enough.",
    "member@1": "Told the family of look-alikes that the person belongs to, the reconstruction is nearest to the right "
    "one of its members. Chance is one over their number, also for whoever knows the family: only more than that says "
    "something of the person.",
    "stranger@1": "The right person is hidden among 1,000 people who were in no data set; the reconstruction must be "
    "nearest to the right one. An attacker who searches a city rather than a list of suspects is in this situation.",
    "stranger@5": "As above, with five guesses.",
    "error": "Distance between the reconstruction's identity factors and the person's, where each factor counts by "
    "what it changes in a picture. 0 is the person, 1 is what a random person would get. Lower is a worse leak.",
    "delta_eval": "Distance in the judge's features to the nearest private image of the person. Comparable only "
    "between targets that share the judge.",
    "knowledge": "A student network is taught by the reconstructions alone and tested on private photographs: what it "
    "gets right, it can only have learnt from what leaked. Compare it with the student of the null.",
    "judge_fid": "How far the reconstructions as a set are from the private images, in the judge's own features. It is "
    "no FID in the usual sense and compares only within this page.",
    "delta_face": "Distance in a face-recognition network's features to the nearest private image of the person.",
    "fid": "How far the reconstructions as a set are from the private images. It depends on the feature network and "
    "on the number of images; compare it within this page only.",
}


def columns(*names: str) -> tuple[Column, ...]:
    """The columns of these metrics ("accuracy", or any name in METRICS), with what is to be said about them."""
    from lightleak.metrics.evaluate import METRICS

    if unknown := [name for name in names if name not in OF_TARGETS and name not in METRICS]:
        raise UserError(f"there is no metric {', '.join(unknown)}; there are {', '.join([*OF_TARGETS, *METRICS])}")
    found = []
    for name in names:
        if name in OF_TARGETS:
            found.append(OF_TARGETS[name])
            continue
        metric = METRICS[name]
        column = Column(name, metric.label, metric.meaning, metric.leak, metric.rate)
        found.append(replace(column, explanation=EXPLANATIONS.get(name, "")))
    return tuple(found)
