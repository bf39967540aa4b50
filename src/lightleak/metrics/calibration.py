"""Whether a network's confidence matches its accuracy."""

from torch import Tensor

from lightleak.ranking import answers

BINS = 10


def calibration(logits: Tensor, labels: Tensor) -> tuple[float | None, float | None]:
    """Expected calibration error in BINS equal bins, and mean confidence less accuracy; None of no images.

    Logits N x C, labels N; both numbers are shares, the first in [0, 1], the second in [-1, 1].
    """
    if not len(logits):
        return None, None
    confidence = logits.double().softmax(1).nan_to_num(nan=0.0).amax(1)
    right = (answers(logits) == labels).double()
    place = (confidence * BINS).long().clamp(max=BINS - 1)
    gaps = [abs(float((right - confidence)[place == one].sum())) for one in range(BINS)]
    return sum(gaps) / len(labels), float((confidence - right).mean())
