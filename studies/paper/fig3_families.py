"""Figure 3 (and 1): at equal natural accuracy. One training leaves checkpoints at several accuracies behind.

What is compared: the whole network and the one without the skips of its last stage, each at several moments of its
training, inverted by PPA. The page draws attack accuracy over natural accuracy and compares where the ranges overlap.

The paper (FaceScrub; ResNet-34/50/152, DenseNet-161/169/201, EfficientNet-B0) shows curves: at the same natural
accuracy the cut networks lose 10 to 15 points of AttAcc@1 if their skips add, 30 to 35 if they concatenate.

Cost: painted, about 30 minutes on two cores; at the paper's scale 14 trainings and 56 attacks of some 2 GPU hours.

    lightleak study studies/paper/fig3_families.py
    lightleak study studies/paper/fig3_families.py --settings scale paper data facescrub:PATH prior ffhq
"""

from dataclasses import replace

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import at
from lightleak.study.tasks import Checkpoint
from lightleak.training import Moment

NETWORKS = {
    "rendered": ("timm:efficientnet_b0",),
    "paper": (
        "torchvision:resnet34",
        "torchvision:resnet50",
        "torchvision:resnet152",
        "torchvision:densenet161",
        "torchvision:densenet169",
        "torchvision:densenet201",
        "torchvision:efficientnet_b0",
    ),
}


SHARES = {"rendered": (0.5, 1.0), "paper": (0.3, 0.45, 0.65, 1.0)}  # of the training: what is attacked
PATIENT = {"epochs": 30, "rate": 2e-3}  # painted: from scratch, EfficientNet-B0 needs them


def tasks(scale="rendered", **options):
    """Two targets of each network, each at several moments of its training."""
    setting = at(scale, patience=PATIENT, **options)
    moments = tuple(Moment(epoch=round(share * setting.recipe.epochs)) for share in SHARES[scale])

    def checkpoints(trained):
        run = replace(trained, checkpoints=moments)
        return [Checkpoint(run, place) for place in range(len(moments))]

    return [
        task
        for network in NETWORKS[scale]
        for task in compare(replace(setting, architecture=network), [(), (RoLSS(),)], checkpoints)
    ]
