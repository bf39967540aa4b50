"""Tables 4 and 7: RepVGG's skips re-parameterised away after training. Does that defend?

What is compared: one trained RepVGG, attacked with its branches (as trained) and fused (as deployed).
Outputs and input gradients are equal, so the attack should find the same, within its own noise.

The paper (FaceScrub; AttAcc@1 trained form | deployed form): A0 85.19 | 86.13, A1 87.85 | 88.04, A2 87.50 | 87.29, B0
90.24 | 90.09, B1 84.29 | 84.76, B3 80.69 | 80.61, D2 67.08 | 66.44. Natural accuracies are equal: 94.90, 95.34, 95.25,
95.50, 95.65, 94.55, 92.05. Whether its networks begin with ImageNet's weights is not said; here they do.

Cost: at the paper's scale seven trainings and 14 attacks; with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/tab4_repvgg.py
    lightleak study studies/paper/tab4_repvgg.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.models import zoo
from lightleak.study.comparison import compare
from lightleak.study.scales import at
from lightleak.study.tasks import Fused
from lightleak.surgery import fuse

NETWORKS = {
    "rendered": ("timm:repvgg_a0",),
    "paper": tuple(f"timm:repvgg_{size}" for size in ("a0", "a1", "a2", "b0", "b1", "b3", "d2se")),
}
# Table 7: delta_eval and delta_face of the trained and of the deployed form.
DISTANCES = {
    "a1": ((122.37, 0.7600), (122.36, 0.7614)),
    "a2": ((121.90, 0.7697), (121.75, 0.7693)),
    "b0": ((120.32, 0.7455), (120.17, 0.7445)),
    "b1": ((124.98, 0.7650), (124.77, 0.7652)),
}


def _row(size, form, accuracy, hits):
    far = dict(zip(("delta_eval", "delta_face"), DISTANCES[size][form])) if size in DISTANCES else {}
    return {"accuracy": accuracy, "hits@1": hits, **far}


PUBLISHED = {
    f"timm:repvgg_{size}": {
        "no defence": _row(size, 0, accuracy, trained),
        "no defence, fused": _row(size, 1, accuracy, deployed),
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
    setting = at(scale, NETWORKS, **options)
    for network in set(setting.networks).difference(*NETWORKS.values()):
        fuse(zoo.build(network, 2).net)  # says now if there is nothing to fuse
    return [task for each in setting.each for task in compare(each, [()], lambda trained: (trained, Fused(trained)))]
