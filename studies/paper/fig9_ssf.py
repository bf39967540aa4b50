"""Figure 9: scaling the last stage's skips by k. Do natural accuracy and attack accuracy both rise with k?

What is compared: k = 0 (RoLSS), 0.2, 0.4, 0.6, 0.8 and 1 (no defence) in the last stage, inverted by PPA.

The paper (ResNet-101 and DenseNet-121, FaceScrub) shows curves without a table: both rise with k; in its other tables
k = 0.2 keeps 93.79 % natural accuracy at 71.06 % AttAcc@1, against 94.86 / 83.00 at k = 1 and 92.40 / 58.68 at k = 0
(ResNet-101).

Cost: at the paper's scale 12 trainings, each attacked at four natural accuracies; with `--dry-run` it says how long
either scale takes here.

    lightleak study studies/paper/fig9_ssf.py
    lightleak study studies/paper/fig9_ssf.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import SSF, RoLSS
from lightleak.study.comparison import along, compare
from lightleak.study.scales import DENSENET, at

NETWORKS = {
    "rendered": ("torchvision:resnet18", DENSENET),
    "paper": ("torchvision:resnet101", "torchvision:densenet121"),
}
FACTORS = (0.8, 0.6, 0.4, 0.2)
PUBLISHED = {
    "torchvision:resnet101": {
        "no defence": {"accuracy": 0.9486, "hits@1": 0.83},
        "RoLSS": {"accuracy": 0.9240, "hits@1": 0.5868},
        "SSF": {"accuracy": 0.9379, "hits@1": 0.7106},
    }
}

STANDS_FOR = {"torchvision:resnet18": "torchvision:resnet101"}  # painted


def tasks(scale="rendered", **options):
    """One target for each k; k = 1 is the network as it is, k = 0 the one without those skips."""
    defences = [(), *((SSF(factor=k),) for k in FACTORS), (RoLSS(),)]
    setting = at(scale, NETWORKS, curve=True, **options)
    return [task for each in setting.each for task in compare(each, defences, along)]
