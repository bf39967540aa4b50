"""Convert what LOMMA learnt from public images: mean and spread of features, and students."""

from collections.abc import Sequence
from pathlib import Path

from lightleak.attacks.knowledge import Knowledge
from lightleak.convert.formats import PLAIN, classifier
from lightleak.convert.layouts import State
from lightleak.errors import UserError
from lightleak.models import weights
from lightleak.models.weights import finite

MEAN, SPREAD = "fea_mean", "fea_logvar"  # the second is a standard deviation, whatever its name says


def is_p_reg(state: State) -> bool:
    """Whether these are the tensors of a p_reg file."""
    return set(state) == {MEAN, SPREAD}


def knowledge(state: State, path: str | Path, students: Sequence[str | Path] = ()) -> Knowledge:
    """The knowledge in a p_reg file and in files of students (augmented models); UserError if they do not fit.

    How far the students agree with the target is not in the files.
    """
    finite(state, str(path))
    mean, spread = (state[name].detach().float() for name in (MEAN, SPREAD))
    if mean.dim() != 1 or mean.shape != spread.shape or not (spread >= 0).all():
        raise UserError(
            f"{path} is no p_reg file of LOMMA: {MEAN} is {tuple(mean.shape)}, {SPREAD} {tuple(spread.shape)}; "
            "expected one mean and one standard deviation for each feature"
        )
    taught = tuple(classifier(weights.read(file), file, PLAIN) for file in students)
    if len({student.classes for student in taught}) > 1:
        told = ", ".join(str(student.classes) for student in taught)
        raise UserError(f"the students know {told} classes; they are not of one target")
    return Knowledge(taught, mean, spread, ())
