"""Table 10: pairs of images for a user study. Which reconstruction looks more like the person?

What is exported: for each person a private image, and beside it, in random order, the reconstructions from the whole
network and from the cut one; a table for those who are asked, and a key for those who count. It ends in a page for
people: `lightleak raters` puts the pairs to them and says what they prefer.

The paper (MaxViT, FaceScrub): 530 people, ten answers for each pair, 60 seconds for a pair; the whole network's image
was preferred in 69.51 % of the answers, the cut one's in 30.49 %. Of a MaxViT the first stage is cut (its MLP
residuals, see fig7_transformers.py), of the painted ResNet the last.

Cost: that of fig7_transformers.py at the paper's scale; painted, a few trainings.

    lightleak study studies/paper/tab10_user_study.py
    lightleak raters runs/tab10_user_study
    lightleak study studies/paper/tab10_user_study.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from dataclasses import replace

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.pairs import Pairs
from lightleak.study.scales import at

NETWORKS = {"rendered": ("torchvision:resnet18",), "paper": ("torchvision:maxvit_t",)}
CUT = {"torchvision:maxvit_t": RoLSS(where="blocks.0.*attention.add_2")}  # of any other network the last stage


def tasks(scale="rendered", seeds=1, **options):
    """Two targets, and the pairs of their reconstructions."""
    setting = at(scale, NETWORKS, seeds=seeds, **options)
    cut = CUT.get(setting.architecture, RoLSS())
    whole, cut = compare(replace(setting, seeds=setting.seeds[:1]), [(), (cut,)])
    return [whole, cut, Pairs(whole.found, cut.found)]
