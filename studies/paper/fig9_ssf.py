"""Figure 9: scaling the last stage's skips by k. Do natural accuracy and attack accuracy both rise with k?

What is compared: k = 0 (RoLSS), 0.05, 0.2, 0.5 and 1 (no defence) in the last stage of one network, inverted by PPA.

The paper (ResNet-101, FaceScrub) shows curves without a table: both rise with k; k = 0.2 keeps 93.79 % natural accuracy
at 71.06 % AttAcc@1, against 94.86 / 83.00 at k = 1 and 92.40 / 58.68 at k = 0.

Cost: painted, about 15 minutes on two cores; at the paper's scale five trainings and attacks of some 3 GPU hours.

    lightleak study studies/paper/fig9_ssf.py
    lightleak study studies/paper/fig9_ssf.py --settings scale paper data facescrub:PATH prior ffhq
"""

from dataclasses import replace

from lightleak.defences import SSF
from lightleak.study.comparison import compare
from lightleak.study.scales import at

NETWORKS = {"rendered": "torchvision:resnet18", "paper": "torchvision:resnet101"}
PUBLISHED = {
    "torchvision:resnet101": {
        "no defence": {"accuracy": 0.9486, "hits@1": 0.83},
        "SSF (factor 0)": {"accuracy": 0.9240, "hits@1": 0.5868},
        "SSF (factor 0.2)": {"accuracy": 0.9379, "hits@1": 0.7106},
    }
}

STANDS_FOR = {"torchvision:resnet18": "torchvision:resnet101"}  # painted


def tasks(scale="rendered", **options):
    """One target for each k; k = 1 is the network as it is."""
    setting = replace(at(scale, **options), architecture=NETWORKS[scale])
    return compare(setting, [(), *((SSF(factor=k),) for k in (0.5, 0.2, 0.05, 0.0))])
