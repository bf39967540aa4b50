"""Figures 12 and 13: the same training three times. Is the effect larger than its own noise?

What is compared: the whole network and the one without the skips of its last stage, three training seeds each, inverted
by PPA. The page shows every run beside the mean.

The paper (ResNet-101 and DenseNet-121, FaceScrub) shows bars of three runs without a table; the whole network stays
above the cut one in all of them.

Cost: at the paper's scale twelve trainings and attacks, painted those of tab2_stages.py, if that has the same folder;
with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/fig12_repetitions.py
    lightleak study studies/paper/fig12_repetitions.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import DENSENET, at

NETWORKS = {
    "rendered": ("torchvision:resnet18", DENSENET),
    "paper": ("torchvision:resnet101", "torchvision:densenet121"),
}


def tasks(scale="rendered", seeds=3, **options):
    """Two targets of each network, once for each seed."""
    setting = at(scale, NETWORKS, seeds=seeds, **options)
    return [task for each in setting.each for task in compare(each, [(), (RoLSS(),)])]
