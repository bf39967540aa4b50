"""Figure 4: other attacks. Do KED-MI, LOMMA and PLG-MI find less in a network without its last stage's skips?

What is compared: IR-152 on CelebA's 64-pixel crops, whole and without the skips of its last stage, inverted by KED-MI,
LOMMA (around KED-MI) and PLG-MI with generators that are fitted to CelebA's public pictures for each target. Counted as
those attacks count: 300 of 1,000 people, five images each, by an IR-50 at 112 pixels.

The paper shows bars: the whole network lies above the cut one for all three attacks. Painted, narrow networks of the
same layout stand for both, and small generators for theirs.

Cost: at the paper's scale two trainings, four generators and six attacks; with `--dry-run` it says how long either
scale takes here. Files: CelebA with the published lists (trainset.txt, testset.txt, ganset.txt), the MS1M backbones of
IR-152 and IR-50, EfficientNet-B0, B1 and B2 for LOMMA's students.

    lightleak study studies/paper/fig4_other_attacks.py
    lightleak study studies/paper/fig4_other_attacks.py \\
        --settings scale paper data celeba:PATH weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.lowres import LowRes
from lightleak.study.scales import at64, chosen_networks

NETWORKS = {"rendered": ("face:ir18-narrow",), "paper": ("face:ir152",)}
PAINTED = ("KED-MI", "LOMMA-KED", "PLG-MI")  # rows of LowRes that stand for the three attacks


def tasks(scale="rendered", seeds=0, people=24, only="", architecture="", **options):
    """Three attacks on both targets."""
    cuts = [(), (RoLSS(),)]
    if scale == "rendered":
        worlds = [LowRes(people=people, seed=seed, **options) for seed in range(seeds or 3)]
        return [
            one.evaluate(one.target(network, cut), row)
            for network in chosen_networks(scale, NETWORKS, only, architecture)
            for one in worlds
            for row in PAINTED
            for cut in cuts
        ]
    settings = at64(scale, NETWORKS, only, architecture, seeds, **options)
    return [task for setting in settings.values() for each in setting.each for task in compare(each, cuts)]
