"""What each metric means, for readers who meet it for the first time."""

from dataclasses import replace

from lightleak.errors import UserError
from lightleak.metrics.registry import METRICS
from lightleak.report.results import Column

ACCURACY = Column(
    "accuracy",
    "natural accuracy",
    "how often the target is right on real test images of its people",
    rate=True,
    words="what the model is for",
    essential=True,
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
    "delta": Column(
        "delta",
        "Delta",
        "points of AttAcc@1 lost for each point of natural accuracy lost; never read it alone",
        explanation="The paper's trade-off: how many points of attack accuracy a defence takes for each point of "
        "natural accuracy that it costs. It explodes where that cost is small, so it stands here only where the cost "
        "is clear of zero, with Fieller's interval: read both numbers instead.",
    ),
    "accuracy deviation": Column(
        "accuracy deviation", "natural accuracy, SD", "standard deviation over trainings, no interval", rate=True
    ),
    "hits@1 deviation": Column(
        "hits@1 deviation", "AttAcc@1, SD", "standard deviation over trainings, no interval", rate=True
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
    "memory": Column("memory", "training memory", "of one step, over the undefended network's"),
    "robust": Column(
        "robust",
        "robust accuracy",
        "natural accuracy within 2/255",
        rate=True,
        explanation="The share of test images that stay right when each pixel may change by 2/255: projected gradient "
        "descent, ten steps, a random start. An upper bound, for a stronger attack may find more.",
    ),
    "calibration": Column(
        "calibration",
        "calibration error",
        "expected, in ten bins",
        rate=True,
        explanation="How far the network's confidence lies from its accuracy, on average over test images.",
    ),
    "published accuracy": Column(
        "published accuracy", "published accuracy", "natural accuracy in the paper", rate=True
    ),
    "published hits@1": Column("published hits@1", "published AttAcc@1", "attack accuracy in the paper", rate=True),
    "published delta_eval": Column(
        "published delta_eval", "published delta_eval", "judge-feature distance in the paper"
    ),
    "published delta_face": Column("published delta_face", "published delta_face", "face distance in the paper"),
}


def columns(*names: str) -> tuple[Column, ...]:
    """The columns of these metrics ("accuracy", or any name in METRICS), with what is to be said about them."""
    if unknown := [name for name in names if name not in OF_TARGETS and name not in METRICS]:
        raise UserError(f"there is no metric {', '.join(unknown)}; there are {', '.join([*OF_TARGETS, *METRICS])}")
    found = []
    for name in names:
        if name in OF_TARGETS:
            found.append(OF_TARGETS[name])
            continue
        metric = METRICS[name]
        about = (metric.label, metric.meaning, metric.leak, metric.rate, metric.explanation)
        found.append(Column(name, *about, words=metric.words, essential="essential" in metric.shown))
    return tuple(found)


def current(column: Column) -> Column:
    """The column of an older record with the current description; its heading and numbers stay as they are."""
    if column.words or column.essential or (column.name not in METRICS and column.name not in OF_TARGETS):
        return column
    (now,) = columns(column.name)
    return replace(column, words=now.words, essential=now.essential)
