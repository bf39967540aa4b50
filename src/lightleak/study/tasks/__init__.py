"""The steps of a study as tasks: draw a population, train, fit a prior, invert, evaluate."""

from lightleak.renamed import former
from lightleak.study.tasks.altered import Altered, Copied, Retrofitted
from lightleak.study.tasks.attacks import Distil, Invert, InvertShard, Score, Taught
from lightleak.study.tasks.evaluation import Evaluate, FitAttributeRegressor, MeasurePrivate, Student, Teach
from lightleak.study.tasks.given import Given, Surrogate, Undone
from lightleak.study.tasks.judges import Judge, ReadyJudge, TrainJudge, ready_judge
from lightleak.study.tasks.populations import Draw, Redivided, contents_of, source
from lightleak.study.tasks.priors import FitPrior, Pixels, Ready, Rendered, ready
from lightleak.study.tasks.targets import (
    Checkpoint,
    Derived,
    Fused,
    Guarded,
    Pretrain,
    Target,
    TrainTarget,
    described,
    people,
    run_of,
)

__all__ = [
    "Altered",
    "Checkpoint",
    "Copied",
    "Derived",
    "Distil",
    "Draw",
    "Evaluate",
    "FitAttributeRegressor",
    "FitPrior",
    "Fused",
    "Given",
    "Guarded",
    "Invert",
    "InvertShard",
    "Judge",
    "MeasurePrivate",
    "Pixels",
    "Pretrain",
    "Ready",
    "ReadyJudge",
    "Redivided",
    "Rendered",
    "Retrofitted",
    "Score",
    "Student",
    "Surrogate",
    "Target",
    "Taught",
    "Teach",
    "TrainJudge",
    "TrainTarget",
    "Undone",
    "contents_of",
    "described",
    "people",
    "ready",
    "ready_judge",
    "run_of",
    "source",
]

__getattr__ = former(
    __name__,
    {
        "FitAppraiser": "lightleak.study.tasks:FitAttributeRegressor",
        "fingerprint": "lightleak.study.tasks:contents_of",
    },
)
