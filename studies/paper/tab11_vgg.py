"""Table 11: networks that never had a skip.

What is compared: VGG-16 and VGG-19 with batch norm, inverted by PPA, beside a ResNet with and without its last skips.
Painted, it is a VGG-16 of a quarter of the channels (VGG-11 learns too slowly there), and beside the ResNet-18 a
residual network of the same channels and as many parameters.

The paper (FaceScrub; natural accuracy / AttAcc@1): VGG-16 93.70 / 49.39, VGG-19 93.51 / 55.57; ResNet-101 94.86 /
83.00, without the last stage's skips 92.40 / 58.68. The published code attacks the variants with batch norm.

Cost: at the paper's scale four trainings and attacks; with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/tab11_vgg.py
    lightleak study studies/paper/tab11_vgg.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import at

NETWORKS = {
    "rendered": ("torchvision:resnet18", "face:ir18-narrow", "face:vgg16-narrow"),
    "paper": ("torchvision:resnet101", "torchvision:vgg16_bn", "torchvision:vgg19_bn"),
}
PUBLISHED = {
    "torchvision:vgg16_bn": {"no defence": {"accuracy": 0.9370, "hits@1": 0.4939}},
    "torchvision:vgg19_bn": {"no defence": {"accuracy": 0.9351, "hits@1": 0.5557}},
    "torchvision:resnet101": {
        "no defence": {"accuracy": 0.9486, "hits@1": 0.83},
        "RoLSS": {"accuracy": 0.9240, "hits@1": 0.5868},
    },
}

STANDS_FOR = {
    "torchvision:resnet18": "torchvision:resnet101",
    "face:vgg16-narrow": "torchvision:vgg16_bn",
}  # painted


def tasks(scale="rendered", **options):
    """A table for each network."""
    setting = at(scale, NETWORKS, **options)
    return [
        task
        for each in setting.each
        for task in compare(each, [()] if "vgg" in each.architecture else [(), (RoLSS(),)])
    ]
