"""Tables 4 and 7: RepVGG's skips re-parameterised away after training. Does that defend?

What is compared: one trained RepVGG, attacked with its branches (as trained) and fused (as deployed).
Outputs and input gradients are equal, so the attack should find the same, within its own noise.

The paper (FaceScrub; AttAcc@1 trained form | deployed form): A0 85.19 | 86.13, A1 87.85 | 88.04, A2 87.50 | 87.29, B0
90.24 | 90.09, B1 84.29 | 84.76, B3 80.69 | 80.61, D2 67.08 | 66.44. Natural accuracies are equal: 94.90, 95.34, 95.25,
95.50, 95.65, 94.55, 92.05.

Cost: painted, about 8 minutes on two cores; at the paper's scale seven trainings and 14 attacks of some 2 GPU hours.

    lightleak study studies/paper/tab4_repvgg.py
    lightleak study studies/paper/tab4_repvgg.py --settings scale paper data facescrub:PATH prior ffhq
"""

from dataclasses import replace

from lightleak.study.comparison import compare
from lightleak.study.scales import at
from lightleak.study.tasks import Fused

NETWORKS = {
    "rendered": ("timm:repvgg_a0",),
    "paper": tuple(f"timm:repvgg_{size}" for size in ("a0", "a1", "a2", "b0", "b1", "b3", "d2se")),
}
PUBLISHED = {
    f"timm:repvgg_{size}": {
        "no defence": {"accuracy": accuracy, "hits@1": trained},
        "no defence, fused": {"accuracy": accuracy, "hits@1": deployed},
    }
    for size, accuracy, trained, deployed in (
        ("a0", 0.9490, 0.8519, 0.8613),
        ("a1", 0.9534, 0.8785, 0.8804),
        ("a2", 0.9525, 0.8750, 0.8729),
        ("b0", 0.9550, 0.9024, 0.9009),
        ("b1", 0.9565, 0.8429, 0.8476),
        ("b3", 0.9455, 0.8069, 0.8061),
        ("d2se", 0.9205, 0.6708, 0.6644),
    )
}


def tasks(scale="rendered", **options):
    """Each network in both forms; the same weights, the same attack, the same random numbers."""
    setting = at(scale, **options)
    return [
        task
        for network in NETWORKS[scale]
        for task in compare(replace(setting, architecture=network), [()], lambda trained: (trained, Fused(trained)))
    ]
