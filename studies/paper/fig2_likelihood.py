"""Figure 2: a target can be sure of a reconstruction that shows somebody else.

Compared: the confidence P(y|x*) after the attack, for the whole network and the one without the last stage's skips,
beside the judge's verdict and, in the painted world, the truth ("judge only": accepted by the judge, not the person).

The paper (ResNet-101, FaceScrub): both histograms lie near 1 although the attack accuracies differ by 24.32 points.

Cost: at the paper's scale two trainings and attacks, painted those of tab2_stages.py, if that has the same folder; with
`--dry-run` it says how long either scale takes here.

    lightleak study studies/paper/fig2_likelihood.py
    lightleak study studies/paper/fig2_likelihood.py \
        --settings scale paper data facescrub:PATH prior FFHQ weights FOLDER judge FILE --device cuda
"""

from lightleak.defences import RoLSS
from lightleak.study.comparison import compare
from lightleak.study.scales import at

NETWORKS = {"rendered": ("torchvision:resnet18",), "paper": ("torchvision:resnet101",)}
PUBLISHED = {"torchvision:resnet101": {"no defence": {"hits@1": 0.83}, "RoLSS": {"hits@1": 0.5868}}}

STANDS_FOR = {"torchvision:resnet18": "torchvision:resnet101"}  # painted


def tasks(scale="rendered", **options):
    """Two targets; their histograms are on the page."""
    return compare(at(scale, NETWORKS, **options), [(), (RoLSS(),)])
