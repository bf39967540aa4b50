"""Figure 3 (and 1): at equal natural accuracy. One training leaves checkpoints at several accuracies behind.

What is compared: the whole network and the one without the skips of its last stage, each at several moments of its
training, inverted by PPA. The page draws attack accuracy over natural accuracy and compares where the ranges overlap.

The paper (FaceScrub; ResNet-34/50/152, DenseNet-161/169/201, EfficientNet-B0) shows curves: at the same natural
accuracy the cut networks lose 10 to 15 points of AttAcc@1 if their skips add, 30 to 35 if they concatenate. Figure 1
has ResNet-101 and DenseNet-121.

Copies are left behind where natural accuracy comes nearest to 70, 80 and 90 % (`accuracies`), so that the ranges of the
two meet; painted, after half and all of the training.

Cost: at the paper's scale 18 trainings and 72 attacks; with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/fig3_families.py
    lightleak study studies/paper/fig3_families.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from dataclasses import replace

from lightleak.defences import RoLSS
from lightleak.study.comparison import along, compare
from lightleak.study.scales import at
from lightleak.study.tasks import Checkpoint
from lightleak.training import CheckpointCriterion

NETWORKS = {
    "rendered": ("timm:efficientnet_b0",),
    "paper": (
        "torchvision:resnet34",
        "torchvision:resnet50",
        "torchvision:resnet101",
        "torchvision:resnet152",
        "torchvision:densenet121",
        "torchvision:densenet161",
        "torchvision:densenet169",
        "torchvision:densenet201",
        "torchvision:efficientnet_b0",
    ),
}


SHARES = (0.5, 1.0)  # painted: of the training, what is attacked
PATIENT = {"epochs": 30, "rate": 2e-3}  # painted: from scratch, EfficientNet-B0 needs them


def tasks(scale="rendered", **options):
    """Two targets of each network, each at several moments of its training."""
    setting = at(scale, NETWORKS, patience=PATIENT, curve=True, **options)
    moments = tuple(CheckpointCriterion(epoch=round(share * setting.recipe.epochs)) for share in SHARES)

    def by_epoch(trained):
        run = replace(trained, checkpoints=moments)
        return [Checkpoint(run, place) for place in range(len(moments))]

    forms = along if scale == "paper" else by_epoch
    return [task for each in setting.each for task in compare(each, [(), (RoLSS(),)], forms)]
