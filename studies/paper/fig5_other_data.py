"""Figure 5: other data. Does the effect depend on the people (or dogs) that the target knows?

What is compared: the whole network and the one without the skips of its last stage, on data of another kind.

The paper (Stanford Dogs, AFHQ dogs as public images; ResNet-50/101, DenseNet-121/169) shows curves: the whole networks
lie above the cut ones. Its judge sees the dogs cropped, its targets the whole pictures, and its attack looks through
larger crops than on faces. Painted, "other data" is a world of harder look-alikes: eight of a kind, more alike.

Cost: at the paper's scale eight trainings, each attacked at four natural accuracies; with `--dry-run` it says how long
either scale takes here.

    lightleak study studies/paper/fig5_other_data.py
    lightleak study studies/paper/fig5_other_data.py \
        --settings scale paper data dogs:PATH prior AFHQDOG weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import along, compare
from lightleak.study.scales import at

NETWORKS = {
    "rendered": ("torchvision:resnet18",),
    "paper": tuple(f"torchvision:{name}" for name in ("resnet50", "resnet101", "densenet121", "densenet169")),
}
OTHER = {"rendered": {"lookalikes": 8, "jitter": 0.35, "images": 18}, "paper": {}}


def tasks(scale="rendered", **options):
    """Two targets of each network."""
    setting = at(scale, NETWORKS, curve=True, **{**OTHER[scale], **options})
    return [task for each in setting.each for task in compare(each, [(), (RoLSS(),)], along)]
