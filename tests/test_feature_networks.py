"""FaceNet, the Inception of FID, and reading published weights: structure, exactness, and hostile files."""

import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torchvision.models import WeightsEnum

from lightleak import compat  # noqa: F401  # before torchvision
from lightleak.errors import UserError
from lightleak.models import facenet, inception, zoo
from lightleak.models.classifier import Classifier, load, save
from lightleak.models.weight_files import Weights, read_tensors


def write(net: nn.Module, path: Path, prefix: str = "", without: str = "-") -> Path:
    """A state dict as torch.save publishes it, in a zip file or in the format from before PyTorch 1.6."""
    tensors = {prefix + name: value for name, value in net.state_dict().items() if without not in name}
    torch.save(tensors, path, _use_new_zipfile_serialization=path.suffix != ".pt")
    return path


def scrambled(net: nn.Module, seed: int = 0) -> nn.Module:
    """The network with statistics of a trained one's size, through which images still make a difference."""
    rng = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=rng) * (2 / fan_in) ** 0.5)
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            for tensor in (module.running_mean, module.bias.data):
                tensor.copy_(torch.randn(tensor.shape, generator=rng) * 0.1)
            for tensor in (module.running_var, module.weight.data):
                tensor.copy_(torch.rand(tensor.shape, generator=rng) + 0.5)
    return net.eval()


# FaceNet


def test_facenet_has_the_published_layout():
    net = facenet.FaceEmbedding(8631)
    assert sum(p.numel() for p in net.parameters()) == 27_910_327  # facenet-pytorch's count for VGGFace2
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    assert shapes["repeat_1.4.branch2.2.conv.weight"] == (32, 32, 3, 3)
    assert shapes["repeat_2.9.branch1.1.conv.weight"] == (128, 128, 1, 7)
    assert shapes["repeat_3.0.branch1.2.conv.weight"] == (192, 192, 3, 1)
    assert shapes["mixed_6a.branch1.2.conv.weight"] == (256, 192, 3, 3)
    assert shapes["mixed_7a.branch2.1.bn.running_var"] == (256,)
    assert shapes["block8.conv2d.bias"] == (1792,)
    assert shapes["last_linear.weight"] == (512, 1792)
    assert "last_linear.bias" not in shapes
    assert {name.split(".")[0] for name in shapes} == {
        "conv2d_1a", "conv2d_2a", "conv2d_2b", "conv2d_3b", "conv2d_4a", "conv2d_4b", "repeat_1", "mixed_6a",
        "repeat_2", "mixed_7a", "repeat_3", "block8", "last_linear", "last_bn", "logits",
    }  # fmt: skip


def test_facenet_block_by_hand():
    block = scrambled(facenet.residual17())
    x = torch.randn(2, 896, 8, 8, generator=torch.Generator().manual_seed(1))
    first, second = block.get_submodule("branch0"), block.get_submodule("branch1")
    expected = F.relu(x + 0.1 * block.conv2d(torch.cat([first(x), second(x)], 1)))
    assert torch.equal(block(x), expected)
    last = scrambled(facenet.residual8(last=True))
    assert last(torch.randn(1, 1792, 3, 3)).min() < 0  # no ReLU at the end


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_facenet_round_trip(tmp_path, suffix):
    torch.manual_seed(0)
    net = scrambled(facenet.FaceEmbedding(7))
    path = tmp_path / f"vggface2{suffix}"
    if suffix == ".safetensors":
        save_file(net.state_dict(), path)
    else:  # files from before PyTorch 1.0 count no batches
        write(net, path, prefix="module.", without="num_batches_tracked")
    loaded = facenet.facenet(path)
    images = torch.rand(2, 3, 96, 96)
    assert torch.equal(loaded(images), net(images))
    assert torch.allclose(loaded(images).norm(dim=1), torch.ones(2))
    assert "vggface2" in loaded.title
    assert Weights.of(path).sha256[:8] in loaded.title
    big = F.interpolate(images, (160, 160), mode="bilinear", antialias=True)
    assert torch.equal(loaded(big), loaded(images))
    assert not any(p.requires_grad for p in loaded.parameters())


def test_facenet_refuses_other_files():
    torch.manual_seed(0)
    tensors = facenet.FaceEmbedding().state_dict()
    with pytest.raises(UserError, match="no FaceNet of facenet-pytorch"):
        facenet.from_state({"fc.weight": torch.zeros(3)}, "this")
    with pytest.raises(UserError, match=r"block8\.conv2d\.bias is missing"):
        facenet.from_state({k: v for k, v in tensors.items() if k != "block8.conv2d.bias"})
    with pytest.raises(UserError, match="stranger is not in the network"):
        facenet.from_state({**tensors, "stranger": torch.zeros(1)})
    with pytest.raises(UserError, match=r"last_bn.weight is \(3,\), not \(512,\)"):
        facenet.from_state({**tensors, "last_bn.weight": torch.zeros(3)})


# Inception


@pytest.mark.parametrize(
    ("ours", "theirs", "channels"),
    [
        (lambda: inception.BlockA(192, 32), lambda: inception.blocks.InceptionA(192, 32), 192),
        (lambda: inception.BlockC(768, 128), lambda: inception.blocks.InceptionC(768, 128), 768),
        (lambda: inception.BlockE(1280, maximum=False), lambda: inception.blocks.InceptionE(1280), 1280),
    ],
)
def test_blocks_are_torchvisions_but_for_the_border_of_the_pooling(ours, theirs, channels):
    torch.manual_seed(0)
    mine, reference = ours().eval(), theirs().eval()
    reference.load_state_dict(mine.state_dict())
    x = torch.rand(1, channels, 9, 9)
    got, expected = mine(x), reference(x)
    pooled = mine.branch_pool.conv.out_channels
    assert torch.allclose(got[:, :-pooled], expected[:, :-pooled], atol=1e-6)
    assert torch.allclose(got[:, -pooled:, 1:-1, 1:-1], expected[:, -pooled:, 1:-1, 1:-1], atol=1e-6)
    assert not torch.allclose(got[:, -pooled:, 0], expected[:, -pooled:, 0], atol=1e-4)
    flat = torch.ones(1, channels, 9, 9)  # the mean over what is inside of a constant is that constant
    assert torch.allclose(mine(flat)[:, -pooled:, 0, 0], mine(flat)[:, -pooled:, 4, 4], atol=1e-5)


def test_the_last_block_pools_by_maximum():
    torch.manual_seed(0)
    block = inception.BlockE(2048, maximum=True).eval()
    x = torch.rand(1, 2048, 8, 8)
    pooled = block.branch_pool(F.max_pool2d(x, 3, 1, 1))
    assert torch.equal(block(x)[:, -pooled.shape[1] :], pooled)


@pytest.mark.parametrize("outputs", [1008, 1000])
def test_inception_round_trip(tmp_path, outputs):
    torch.manual_seed(0)
    net = scrambled(inception.InceptionFeatures(outputs))
    path = write(net.net, tmp_path / "pt_inception.pth", without="num_batches_tracked")
    loaded = inception.inception(path)
    images = torch.rand(2, 3, 48, 48)
    features = loaded(images)
    assert features.shape == (2, 2048)
    assert (features[0] - features[1]).abs().mean() > 0.01 * features.abs().mean()
    expected = net(images)
    assert torch.allclose(net.net.fc(features), expected, rtol=1e-4, atol=1e-4)
    kinds = {type(loaded.net.Mixed_7c).__name__, type(loaded.net.Mixed_5b).__name__}
    assert kinds == ({"BlockA", "BlockE"} if outputs == 1008 else {"InceptionA", "InceptionE"})
    assert "pt_inception.pth (sha256" in loaded.title
    # PPA's convention is the same network, fed once more through x -> 2x - 1.
    published = inception.inception(path, published=True)
    assert torch.allclose(published(images), loaded(2 * images - 1), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(published(images), features, rtol=1e-2, atol=1e-2)
    assert published.title.endswith("fed in [-3, 1]")


def test_torchvisions_own_file_with_its_auxiliary_head(tmp_path):
    torch.manual_seed(0)
    net = inception.Inception3(aux_logits=True, init_weights=False, transform_input=False).eval()
    loaded = inception.inception(write(net, tmp_path / "inception_v3_google.pth"))
    images = torch.rand(1, 3, 299, 299)
    with torch.no_grad():
        assert torch.allclose(net.fc(loaded(images)), net(2 * images - 1), atol=1e-4)


def test_torchvisions_transform_is_another_normalisation():
    torch.manual_seed(0)
    net = scrambled(inception.Inception3(num_classes=3, aux_logits=False, init_weights=False, transform_input=True))
    mean, std = inception.after_transform()
    plain = inception.Inception3(num_classes=3, aux_logits=False, init_weights=False, transform_input=False).eval()
    plain.load_state_dict(net.state_dict())
    images = torch.rand(2, 3, 96, 96)
    expected = Classifier(net, size=96, classes=3)(images)
    assert torch.allclose(Classifier(plain, size=96, classes=3, mean=mean, std=std)(images), expected, rtol=1e-3)
    assert not torch.allclose(Classifier(plain, size=96, classes=3)(images), expected, rtol=1e-2)


@pytest.mark.parametrize("name", ["inception_v3", "googlenet"])
def test_downloaded_inceptions_survive_a_checkpoint(name, monkeypatch, tmp_path):
    """Torchvision transforms the input of a pretrained network only: a rebuilt one would see other images."""
    torch.manual_seed(0)
    make = torchvision.models.get_model_builder(name)
    stored = scrambled(make(weights=None, init_weights=False)).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_, **__: stored)
    classifier = zoo.build(f"torchvision:{name}", 4, 128, pretrained=True).eval()
    again = load(save(classifier, tmp_path / "net.safetensors"))
    images = torch.rand(2, 3, 128, 128)
    assert torch.equal(again(images), classifier(images))


def test_a_judge_of_one_size_resizes_what_it_is_given():
    assert zoo.only_size("face:facenet112") == 112
    assert zoo.only_size("face:ir152") == 64
    assert zoo.only_size("face:vgg16-narrow") is None
    assert zoo.only_size("timm:resnet18") is None
    torch.manual_seed(0)
    judge = zoo.build("face:facenet112", 3, zoo.only_size("face:facenet112")).eval()
    images = torch.rand(2, 3, 64, 64)
    larger = F.interpolate(images, (112, 112), mode="bilinear", align_corners=False)
    assert torch.allclose(judge(images), judge(larger), atol=1e-5)


# Files


class Bomb:
    """What a hostile pickle would do."""

    def __reduce__(self):
        return (Path.touch, (Path("exploded"),))


def test_hostile_and_broken_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bomb.pt").write_bytes(pickle.dumps({"a": Bomb()}))
    torch.save({"a": Bomb()}, tmp_path / "bomb.pth")
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pth").write_text("weights")
    (tmp_path / "short.safetensors").write_bytes(b"\0" * 5)
    write(nn.Linear(2, 2), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:400])
    for name in ("bomb.pt", "bomb.pth", "empty.pt", "text.pth", "short.safetensors", "cut.pth"):
        with pytest.raises(
            UserError, match=r"is no file of plain weights|is refused: |is not what torch\.save writes"
        ) as error:
            read_tensors(tmp_path / name)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()
    torch.save({"epoch": 3}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no network"):
        read_tensors(tmp_path / "other.pth")
    with pytest.raises(UserError, match="there is no file"):
        read_tensors(tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match=r"cannot be read \(No such file"):
        Weights.of(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("wrap", [lambda d: d, lambda d: {"state_dict": d}, lambda d: {"epoch": 1, "model": d}])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_wrappings_are_taken_off(tmp_path, wrap, prefix):
    net = nn.Linear(2, 3)
    torch.save(wrap({prefix + name: value for name, value in net.state_dict().items()}), tmp_path / "net.pth")
    assert list(read_tensors(tmp_path / "net.pth")) == ["weight", "bias"]


def test_equal_bytes_are_equal_weights(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).write_bytes(b"same")
    assert Weights.of(tmp_path / "a.pth") == Weights.of(tmp_path / "b.pth")
    assert Weights.of(tmp_path / "a.pth").path != Weights.of(tmp_path / "b.pth").path
