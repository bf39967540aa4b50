"""Table 8: does RoLSS add to BiDO?

What is compared: no defence, BiDO, and BiDO on a network without the skips of its last stage, inverted by PPA. With
`--settings terms true` also RoLSS beside each of BiDO's terms: the features' dependence on the input, which it lowers
(lambda x), and that on the label, which it raises (lambda y).

The paper (ResNet-101, FaceScrub; natural accuracy / AttAcc@1): none 94.86 / 83.00, BiDO 90.31 / 67.07, BiDO + RoLSS
89.13 / 41.44.

Cost: at the paper's scale three trainings and attacks; with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/tab8_bido_rolss.py
    lightleak study studies/paper/tab8_bido_rolss.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import BiDO, RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import at

NETWORKS = {"rendered": ("torchvision:resnet18",), "paper": ("torchvision:resnet101",)}
PUBLISHED = {
    "torchvision:resnet101": {
        "no defence": {"accuracy": 0.9486, "hits@1": 0.83},
        "BiDO": {"accuracy": 0.9031, "hits@1": 0.6707},
        "BiDO + RoLSS": {"accuracy": 0.8913, "hits@1": 0.4144},
    }
}

STANDS_FOR = {"torchvision:resnet18": "torchvision:resnet101"}  # painted


def tasks(scale="rendered", terms=False, **options):
    """Three targets; with `terms` true also RoLSS alone, and beside each of BiDO's two terms by itself."""
    three = [(), (BiDO(),), (BiDO(), RoLSS())]
    each = [(RoLSS(),), (BiDO(lambda_x=0.0), RoLSS()), (BiDO(lambda_y=0.0), RoLSS())]
    return compare(at(scale, NETWORKS, **options), [*three, *each] if terms else three)
