"""Figure 7: vision transformers. Does the finding reach beyond convolutions?

What is compared: a ViT whole, without the attention residuals and without the MLP residuals of its last quarter; at the
paper's scale also MaxViT whole and without the MBConv skips of its last stage.

The paper (FaceScrub) shows curves; cutting MaxViT takes about 30 points of AttAcc@1. Its user study names the two
MaxViT checkpoints: 96.94 / 80.78 whole, 95.09 / 25.17 cut (natural accuracy / AttAcc@1).

Cost: painted, about 20 minutes on two cores; at the paper's scale six trainings and attacks of some 4 GPU hours.

    lightleak study studies/paper/fig7_transformers.py
    lightleak study studies/paper/fig7_transformers.py --settings scale paper data facescrub:PATH prior ffhq
"""

from dataclasses import replace

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import at

VIT = {"rendered": "timm:vit_tiny_patch16_224", "paper": "torchvision:vit_b_16"}
ATTENTION = {"rendered": "blocks.9.add*", "paper": "*self_attention*"}
PUBLISHED = {
    "torchvision:maxvit_t": {
        "no defence": {"accuracy": 0.9694, "hits@1": 0.8078},
        "RoLSS": {"accuracy": 0.9509, "hits@1": 0.2517},
    }
}


def tasks(scale="rendered", **options):
    """A ViT with and without its last quarter's residuals, and MaxViT at the paper's scale."""
    setting = at(scale, **options)
    found = compare(replace(setting, architecture=VIT[scale]), [(), (RoLSS(),)])
    if scale == "paper":
        found += compare(replace(setting, architecture="torchvision:maxvit_t"), [(), (RoLSS(),)])
    return found
