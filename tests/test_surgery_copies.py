"""Networks that keep what an evaluation computed are copied, cut, attacked and trained like any other."""

import pytest
import timm
import torch
from torch import nn

from lightleak.attacks.oracle import Oracle
from lightleak.models.classifier import Classifier
from lightleak.surgery import remove_skips
from lightleak.surgery.copies import copied

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


class Keeping(nn.Module):
    """Keeps results of its last run in an attribute, a dictionary and a list of tuples."""

    def __init__(self):
        super().__init__()
        self.layer, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.Linear(3, 4)
        self.cache = {}
        self.maps = []

    def forward(self, x):
        self.last = x + self.layer(x)
        self.cache["map"] = self.last * 2
        self.maps = [(self.last, "map")]
        return self.fc(self.last.mean((2, 3)))


def test_a_copy_keeps_the_numbers_and_leaves_the_graph():
    net = Keeping()
    net(IMAGES)
    with pytest.raises(RuntimeError, match="deepcopy"):
        __import__("copy").deepcopy(net)
    twin = copied(net)
    assert torch.equal(twin.last, net.last)
    assert twin.cache["map"].is_leaf
    assert twin.maps[0][0] is twin.last
    assert net.last.grad_fn is not None
    assert not any(a is b for a, b in zip(twin.parameters(), net.parameters()))


@pytest.mark.parametrize(
    "make",
    [
        Keeping,
        lambda: timm.create_model("levit_128s", num_classes=4, img_size=64),
        pytest.param(lambda: timm.create_model("tiny_vit_5m_224", num_classes=4), marks=pytest.mark.slow),
        pytest.param(lambda: timm.create_model("efficientvit_m0", num_classes=4, img_size=64), marks=pytest.mark.slow),
        pytest.param(lambda: timm.create_model("efficientformer_l1", num_classes=4), marks=pytest.mark.slow),
        pytest.param(lambda: timm.create_model("efficientformerv2_s0", num_classes=4), marks=pytest.mark.slow),
    ],
    ids=["Keeping", "LeViT", "TinyViT", "EfficientViT", "EfficientFormer", "EfficientFormerV2"],
)
def test_surgery_and_oracle_after_an_evaluation(make):
    torch.manual_seed(0)
    net = make().eval()
    size = 224 if type(net).__name__.startswith(("EfficientFormer", "TinyVit")) else 64
    images = torch.rand(2, 3, size, size)
    before = net(images)
    cut = remove_skips(net, "last", images).eval()
    assert not torch.equal(cut(images), before)
    cut.train()
    cut(images).logsumexp(1).sum().backward()
    classifier = Classifier(net, size=size, classes=4)
    classifier(images)
    answer = Oracle(classifier).logits(images)
    torch.testing.assert_close(answer, classifier.eval()(images), rtol=1e-4, atol=1e-5)
