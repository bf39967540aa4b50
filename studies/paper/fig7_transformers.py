"""Figure 7: vision transformers. Does the finding reach beyond convolutions?

What is compared: a ViT whole, without the MLP residual of its first block (what the paper cuts: its text says that a
ViT bears no more) and without all residuals of its last quarter; at the paper's scale also MaxViT whole and without the
skips of its last stage.

The paper (FaceScrub) shows curves; cutting MaxViT takes about 30 points of AttAcc@1. Its user study names the two
MaxViT checkpoints: 96.94 / 80.78 whole, 95.09 / 25.17 cut (natural accuracy / AttAcc@1). Its ViTs with
one residual less have natural accuracies of 65.4 to 76.2.

Cost: painted, about 20 minutes on two cores; at the paper's scale six trainings and attacks of some 4 GPU hours.

    lightleak study studies/paper/fig7_transformers.py
    lightleak study studies/paper/fig7_transformers.py --settings scale paper data facescrub:PATH prior ffhq
"""

from dataclasses import replace

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import at

VIT = {"rendered": "timm:vit_tiny_patch16_224", "paper": "torchvision:vit_b_16"}
FIRST_MLP = {"rendered": "blocks.0.add_2", "paper": "encoder.layers.encoder_layer_0.add_2"}
# Painted: from scratch, with what a ViT of nine patches needs to learn 32 people.
PATIENT = {"epochs": 40, "optimiser": "adamw", "rate": 3e-4, "weight_decay": 0.05, "milestones": (), "cosine_to": 0.0}
PUBLISHED = {
    "torchvision:maxvit_t": {
        "no defence": {"accuracy": 0.9694, "hits@1": 0.8078},
        "RoLSS": {"accuracy": 0.9509, "hits@1": 0.2517},
    }
}


def tasks(scale="rendered", **options):
    """A ViT whole, without its first MLP residual and without its last quarter's; MaxViT at the paper's scale."""
    setting = at(scale, patience=PATIENT, **options)
    found = compare(replace(setting, architecture=VIT[scale]), [(), (RoLSS(where=FIRST_MLP[scale]),), (RoLSS(),)])
    if scale == "paper":
        found += compare(replace(setting, architecture="torchvision:maxvit_t"), [(), (RoLSS(),)])
    return found
