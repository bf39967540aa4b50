"""Figure 7: vision transformers. Does the finding reach beyond convolutions?

What is compared: a ViT whole, without the MLP residual of its first block (what the paper cuts: its text says that a
ViT bears no more) and, painted, without all residuals of its last quarter; at the paper's scale also MaxViT whole and
without the MLP or the attention residuals of its first stage: of a vision transformer the paper cuts the first stage
alone, and the published runs are those two.

The paper (FaceScrub) shows curves; cutting MaxViT takes about 30 points of AttAcc@1. Its user study names two MaxViT
checkpoints: 96.94 / 80.78 whole, 95.09 / 25.17 cut (natural accuracy / AttAcc@1), and nowhere says which skips the
latter lacks; natural accuracies of published runs are 95.06 without the first stage's MLP residuals and 94.02 without
its attention residuals. Its ViTs with one residual less have natural accuracies of 65.4 to 76.2.

Cost: at the paper's scale five trainings, each attacked at four natural accuracies; with `--dry-run` it says how long
either scale takes here.

    lightleak study studies/paper/fig7_transformers.py
    lightleak study studies/paper/fig7_transformers.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import along, compare
from lightleak.study.scales import at

NETWORKS = {"rendered": ("timm:vit_tiny_patch16_224",), "paper": ("torchvision:vit_b_16", "torchvision:maxvit_t")}
CUTS = {  # of any other network the last stage
    "timm:vit_tiny_patch16_224": [(RoLSS(where="blocks.0.add_2"),), (RoLSS(),)],
    "torchvision:vit_b_16": [(RoLSS(where="encoder.layers.encoder_layer_0.add_2"),)],
    "torchvision:maxvit_t": [
        (RoLSS(where=f"blocks.0.*attention.{join}"),) for join in ("add_2", "add")
    ],  # MLP, attention
}
# Painted: from scratch, with what a ViT of nine patches needs to learn 32 people.
PATIENT = {"epochs": 40, "optimiser": "adamw", "rate": 3e-4, "weight_decay": 0.05, "milestones": (), "cosine_to": 0.0}
PUBLISHED = {
    "torchvision:maxvit_t": {
        "no defence": {"accuracy": 0.9694, "hits@1": 0.8078},
        "RoLSS (where blocks.0.*attention.add_2)": {"accuracy": 0.9506},
        "RoLSS (where blocks.0.*attention.add)": {"accuracy": 0.9402},
    }
}


def tasks(scale="rendered", **options):
    """Each network whole and cut."""
    setting = at(scale, NETWORKS, patience=PATIENT, curve=True, **options)
    return [
        task for each in setting.each for task in compare(each, [(), *CUTS.get(each.architecture, [(RoLSS(),)])], along)
    ]
