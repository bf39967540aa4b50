"""What networks begin with: files in published containers, renamed layers, other networks, damaged names."""

import hashlib

import pytest
import torch
from torchvision.models import vgg

from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.face import Backbone, FaceNet
from lightleak.models.inception import after_transform
from lightleak.models.starting import begin, find, published_name
from lightleak.models.weight_files import Weights
from lightleak.models.wrap import Classifier


def built(architecture, classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return zoo.build(architecture, classes, 32)


def saved(state, path):
    torch.save(state, path)
    return Weights.of(path)


def test_all_but_the_head_is_taken(tmp_path):
    source, ours = built("torchvision:resnet18", 9, seed=1), built("torchvision:resnet18")
    head = ours.net.fc.weight.clone()
    begun = begin(ours, saved(source.net.state_dict(), tmp_path / "resnet18.pth"))
    own, theirs = begun.net.state_dict(), source.net.state_dict()
    assert torch.equal(own["fc.weight"], head)
    assert all(torch.equal(own[name], theirs[name]) for name in theirs if not name.startswith("fc."))
    assert begun.record["start"]["sha256"] == hashlib.sha256((tmp_path / "resnet18.pth").read_bytes()).hexdigest()


def test_densenets_of_before_2018_have_other_names(tmp_path):
    """The file that torchvision still publishes: denselayer1.norm.1 for norm1; counters of batches are missing."""
    source = built("torchvision:densenet121", 9, seed=1).net.state_dict()
    old = {}
    for name, value in source.items():
        if not name.endswith("num_batches_tracked"):
            for part in ("norm", "conv"):
                for number in "12":
                    if "denselayer" in name:
                        name = name.replace(f".{part}{number}.", f".{part}.{number}.")
            old[name] = value
    begun = begin(built("torchvision:densenet121"), saved(old, tmp_path / "d.pth")).net.state_dict()
    assert any(".norm.1." in name for name in old)
    assert all(torch.equal(begun[name], value) for name, value in source.items()
               if not name.startswith("classifier") and not name.endswith("num_batches_tracked"))  # fmt: skip


def test_a_backbone_of_faces_fits_both_sizes(tmp_path, monkeypatch):
    """Its own head is for 112 pixels: the judge takes it, the 64-pixel target does not."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        source = Backbone(18, 112, 4).state_dict()
    weights = saved(source, tmp_path / "b.pth")
    monkeypatch.setitem(zoo.BUILDERS, "face", lambda name, classes, _size, _pretrained: (
        FaceNet(18, int(name), classes, 4), int(name)))  # fmt: skip
    for side in (64, 112):
        ours = Classifier(FaceNet(18, side, 3, 4), size=side, classes=3, architecture=f"face:{side}", mean=(0.0,) * 3,
                          std=(1.0,) * 3)  # fmt: skip
        begun = begin(ours, weights).net.state_dict()
        taken = {f"feature.{name}": value for name, value in source.items() if side == 112 or "output" not in name}
        assert all(torch.equal(begun[name], value) for name, value in taken.items())


def test_a_small_vgg_begins_with_the_layers_of_torchvisions(tmp_path):
    """Its convolutions are the same; its batch norm over 2,048 values and its head are its own."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = vgg.make_layers(vgg.cfgs["D"], batch_norm=True).state_dict()
    source = {f"features.{name}": value for name, value in layers.items()} | {"classifier.0.weight": torch.ones(4096)}
    ours = zoo.build("face:vgg16", 3, 64)
    before = {name: value.clone() for name, value in ours.net.state_dict().items()}
    begun = begin(ours, saved(source, tmp_path / "vgg16_bn.pth")).net.state_dict()
    for name, value in begun.items():
        expected = source[name.replace("feature.", "features.")] if name.startswith("feature.") else before[name]
        assert torch.equal(value, expected), name
    del source["features.3.weight"]
    with pytest.raises(UserError, match=r"features\.3\.weight is missing"):
        begin(ours, saved(source, tmp_path / "less.pth"))


def test_another_network_is_refused(tmp_path):
    deeper = saved(built("torchvision:resnet34", 9).net.state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(
        UserError, match=r"does not fit its architecture: layer1\.2\.conv1\.weight is not in the network"
    ):
        begin(built("torchvision:resnet18"), deeper)
    with pytest.raises(UserError, match="is missing"):
        begin(
            built("torchvision:resnet34"), saved(built("torchvision:resnet18", 9).net.state_dict(), tmp_path / "x.pth")
        )


def test_torchvisions_input_transform_comes_with_its_weights(tmp_path):
    """What it does to images before an Inception becomes the classifier's normalisation."""
    net = built("torchvision:googlenet", 9, seed=1)
    begun = begin(built("torchvision:googlenet"), saved(net.net.state_dict(), tmp_path / "googlenet.pth"))
    assert (begun.mean, begun.std) == after_transform()


def test_files_are_found_by_their_published_names(tmp_path):
    assert published_name("torchvision:resnet101") == "resnet101-63fe2227.pth"
    assert published_name("timm:repvgg_a0") == "repvgg_a0.rvgg_in1k.safetensors"
    assert published_name("face:ir152").startswith("Backbone_IR_152_Epoch_112")
    assert published_name("face:vgg16") == published_name("torchvision:vgg16_bn") == "vgg16_bn-6c64b313.pth"
    assert published_name("face:ir18-narrow") is None
    with pytest.raises(UserError, match=r"has no resnet101-63fe2227\.pth for torchvision:resnet101"):
        find(tmp_path, "torchvision:resnet101")
    (tmp_path / "resnet101-63fe2227.pth").write_bytes(b"half a download")
    with pytest.raises(UserError, match="is damaged or another file: its sha256 begins with"):
        find(tmp_path, "torchvision:resnet101")
    (tmp_path / "repvgg_a0.rvgg_in1k").mkdir()
    (tmp_path / "repvgg_a0.rvgg_in1k" / "model.safetensors").write_bytes(b"x")
    assert find(tmp_path, "timm:repvgg_a0").path.endswith("repvgg_a0.rvgg_in1k/model.safetensors")
    (tmp_path / "vgg16_bn.pth").write_bytes(b"x")
    assert find(tmp_path, "torchvision:vgg16_bn").title.startswith("vgg16_bn.pth")
