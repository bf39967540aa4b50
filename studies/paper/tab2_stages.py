"""Table 2: removing the skips of one stage at a time. Are those of the last stage the leakiest?

What is compared: the whole network, and the same trained without the skips of stage 1, 2, 3 or 4, each inverted by PPA.
Beside it, how much of the gradient runs through the skips of each stage (the paper's equation 2).

Painted, the DenseNet is one of four layers a stage: without a stage's skips DenseNet-121 hardly learns there (a chain
of 12 to 48 narrow convolutions of few pixels). Every cut one is also held against the whole network stopped at the same
natural accuracy.

The paper (FaceScrub, AttAcc@1 in %; Full / Skip-1 / Skip-2 / Skip-4 removed): ResNet-34 90.78 / 83.25 / 77.92 / 80.61,
ResNet-50 82.76 / 73.23 / 78.77 / 68.44, ResNet-101 83.00 / 74.81 / 78.75 / 58.68, ResNet-152 86.51 / 80.35 / 69.04 /
68.44, DenseNet-121 88.11 / 61.72 / 55.21 / 24.48, DenseNet-161 74.86 / 55.38 / 59.25 / 20.71, DenseNet-169 77.15 /
60.99 / 51.86 / 6.77, DenseNet-201 77.62 / 57.41 / 46.65 / 20.71. Natural accuracies are not given.

Cost: at the paper's scale about 40 trainings and attacks; with `--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/tab2_stages.py
    lightleak study studies/paper/tab2_stages.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare, compare_on_the_way
from lightleak.study.gradient_shares import GradientShares
from lightleak.study.scales import EIGHT, EIGHT_STAND_FOR, at

ROW = {1: "RoLSS (where 1)", 2: "RoLSS (where 2)", 4: "RoLSS"}  # of each stage; RoLSS cuts the last one
PUBLISHED = {
    network: {"no defence": {"hits@1": full}, **{ROW[n]: {"hits@1": cut} for n, cut in rest.items()}}
    for network, full, rest in (
        ("torchvision:resnet34", 0.9078, {1: 0.8325, 2: 0.7792, 4: 0.8061}),
        ("torchvision:resnet50", 0.8276, {1: 0.7323, 2: 0.7877, 4: 0.6844}),
        ("torchvision:resnet101", 0.8300, {1: 0.7481, 2: 0.7875, 4: 0.5868}),
        ("torchvision:resnet152", 0.8651, {1: 0.8035, 2: 0.6904, 4: 0.6844}),
        ("torchvision:densenet121", 0.8811, {1: 0.6172, 2: 0.5521, 4: 0.2448}),
        ("torchvision:densenet161", 0.7486, {1: 0.5538, 2: 0.5925, 4: 0.2071}),
        ("torchvision:densenet169", 0.7715, {1: 0.6099, 2: 0.5186, 4: 0.0677}),
        ("torchvision:densenet201", 0.7762, {1: 0.5741, 2: 0.4665, 4: 0.2071}),
    )
}

STANDS_FOR = EIGHT_STAND_FOR


def tasks(scale="rendered", **options):
    """Every network whole, and without the skips of each of its four stages."""
    setting = at(scale, EIGHT, **options)
    stages = [(), *((RoLSS(where=stage),) for stage in (1, 2, 3)), (RoLSS(),)]
    found = [task for each in setting.each for task in compare(each, stages)]
    targets = [task.found.target for task in found if task.found.target.seed == setting.seeds[0]]
    if scale == "rendered":
        for each in setting.each:
            first = range(len(each.checkpoints))[:1]
            found += [*compare_on_the_way(each, [()]), *compare_on_the_way(each, stages[1:], first)]
    return [*found, *map(GradientShares, targets)]
