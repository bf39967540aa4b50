"""Tables 5, 6 and 9: RoLSS, RoLSS+, SSF and TTS against MID, DP-SGD and BiDO.

What is compared: one network with each defence, inverted by PPA. The painted comparison has more defences, strengths
that were swept, and a second loss of the attack: studies/defences_faces.py.

The paper (FaceScrub; natural accuracy / AttAcc@1): see PUBLISHED below. Its Delta divides the loss of attack accuracy
by the loss of natural accuracy and explodes where the latter is small: read both numbers instead.

Cost: at the paper's scale 44 trainings and attacks; with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/tab5_defences.py
    lightleak study studies/paper/tab5_defences.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import DPSGD, MID, SSF, TTS, BiDO, RoLSS, RoLSSPlus
from lightleak.study.comparison import compare
from lightleak.study.scales import EIGHT, EIGHT_STAND_FOR, at

# The paper does not say how much noise its DP row has; at its natural accuracy (89.7 to 91.6 %) it can be little, and
# promises nothing. A row with a guarantee: studies/defences_faces.py.
LITTLE = DPSGD(epsilon=None, noise=0.01)
_ROWS = ("no defence", "MID", "DP-SGD (epsilon None, noise 0.01)", "BiDO", "RoLSS", "RoLSS+", "SSF", "TTS")
_RESNETS = {
    34: "94.69/90.78 91.12/46.25 89.66/72.19 91.66/81.98 91.38/71.86 93.49/65.78 94.21/79.79 94.40/81.65",
    50: "94.58/82.76 89.62/66.82 89.97/68.89 91.12/58.41 92.89/68.44 92.51/64.50 93.05/74.79 93.56/77.21",
    101: "94.86/83.00 90.85/52.61 91.36/74.88 90.31/67.07 92.40/58.68 91.05/52.74 93.79/71.06 94.16/77.26",
    152: "95.43/86.51 91.56/66.18 91.61/75.33 91.80/58.14 93.00/64.98 92.19/54.79 93.79/70.71 93.97/73.59",
}
_DENSENETS = {
    121: "94.67/78.09 86.86/24.48 91.73/56.32",
    161: "93.93/74.86 87.67/20.71 93.77/74.27",
    169: "94.28/77.15 72.14/6.77 92.95/60.99",
    201: "94.32/77.62 74.25/10.24 93.09/65.21",
}


def _read(rows, text):
    pairs = (pair.split("/") for pair in text.split())
    return {row: {"accuracy": float(a) / 100, "hits@1": float(b) / 100} for row, (a, b) in zip(rows, pairs)}


PUBLISHED = {
    **{f"torchvision:resnet{depth}": _read(_ROWS, text) for depth, text in _RESNETS.items()},
    **{
        f"torchvision:densenet{depth}": _read(("no defence", "RoLSS", "SSF"), text)
        for depth, text in _DENSENETS.items()
    },
}

STANDS_FOR = EIGHT_STAND_FOR


def tasks(scale="rendered", **options):
    """Three rows for each DenseNet, eight for any other network."""
    eight = [(), (MID(),), (LITTLE,), (BiDO(),), (RoLSS(),), (RoLSSPlus(),), (SSF(),), (TTS(),)]
    three = [(), (RoLSS(),), (SSF(),)]
    return [
        task
        for each in at(scale, EIGHT, **options).each
        for task in compare(each, three if "densenet" in each.architecture else eight)
    ]
