"""A miniature of all that the paper's studies need, in the layouts and containers in which it is published."""

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from timm.models import byobnet
from torch import nn
from torchvision import models

from lightleak import cli
from lightleak.data import faces
from lightleak.models import face, zoo
from lightleak.models.classifier import save
from lightleak.models.face import Backbone
from lightleak.models.facenet import FaceEmbedding
from lightleak.models.inception import InceptionFeatures
from lightleak.models.starting import published_name
from lightleak.priors.stylegan2 import Discriminator, Generator
from test_foreign import dumped, easy, official

PEOPLE, PICTURES = 8, 12  # who is private, and how many pictures there are of each
GENERATOR = {
    "c_dim": 0,
    "img_resolution": 32,
    "img_channels": 3,
    "z_dim": 12,
    "w_dim": 10,
    "mapping_kwargs": {"num_layers": 2, "w_avg_beta": 0.995},
    "synthesis_kwargs": {"channel_base": 128, "channel_max": 6, "num_fp16_res": 0, "conv_clamp": None},
}
CRITIC = {
    "c_dim": 0,
    "img_resolution": 32,
    "img_channels": 3,
    "channel_base": 128,
    "channel_max": 6,
    "block_kwargs": {},
    "mapping_kwargs": {},
    "epilogue_kwargs": {"mbstd_group_size": 2},
}


def painted(people=PEOPLE, each=PICTURES, seed=0, size=32):
    """Painted people: pictures of each, uint8 H x W x 3."""
    world = faces.population(people=people, images=each, size=size, seed=seed, public_people=1, public_images=1,
                             judge_images=1, validation_images=1, test_images=1)  # fmt: skip
    return [[p.permute(1, 2, 0).numpy() for p in world.train.pixels[world.train.labels == i]] for i in range(people)]


def written(pixels, path, width=40, height=40):
    """A painted picture as a file, resized to a published shape."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height)).save(path, quality=95)


def facescrub(root: Path) -> Path:
    """actors/faces/NAME/FILE.jpg and actresses/faces/NAME/FILE.jpg."""
    for person, pictures in enumerate(painted()):
        name = f"{('Aaron', 'Zooey')[person % 2]}_{person}"
        for number, pixels in enumerate(pictures):
            place = root / ("actors", "actresses")[person % 2] / "faces" / name / f"{name}_{number:03d}.jpg"
            written(pixels, place, 44, 40)
    return root


def celeba(root: Path) -> Path:
    """img_align_celeba/000001.jpg, identity_CelebA.txt, and the lists that the 64-pixel attacks copy."""
    identities, train, test, number = [], [], [], 0
    for person, pictures in enumerate(painted(seed=1)):
        for place, pixels in enumerate(pictures):
            number += 1
            written(pixels, root / "img_align_celeba" / f"{number:06d}.jpg", 178, 218)
            identities.append(f"{number:06d}.jpg {person + 1}")
            (test if place % 6 == 5 else train).append(f"{number:06d}.png {person}")
    public = []
    for person, pictures in enumerate(painted(people=6, each=4, seed=2)):
        for pixels in pictures:
            number += 1
            written(pixels, root / "img_align_celeba" / f"{number:06d}.jpg", 178, 218)
            identities.append(f"{number:06d}.jpg {100 + person}")
            public.append(f"{number:06d}.png")
    for name, lines in (("identity_CelebA", identities), ("trainset", train), ("testset", test), ("ganset", public)):
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return root


def dogs(root: Path) -> Path:
    """Images, Annotation, train_list.mat and test_list.mat."""
    lists: dict[str, tuple[list[str], list[int]]] = {"train_list.mat": ([], []), "test_list.mat": ([], [])}
    for label, pictures in enumerate(painted(seed=3)):
        breed = f"n{2085620 + label:08d}-breed_{label}"
        for number, pixels in enumerate(pictures):
            name = f"{breed}/{breed.split('-')[0]}_{number}"
            written(pixels, root / "Images" / f"{name}.jpg", 60, 48)
            note = root / "Annotation" / name
            note.parent.mkdir(parents=True, exist_ok=True)
            box = "<xmin>10</xmin><ymin>5</ymin><xmax>50</xmax><ymax>45</ymax>"
            note.write_text(f"<annotation><object><bndbox>{box}</bndbox></object></annotation>")
            files, labels = lists["train_list.mat" if number < 7 else "test_list.mat"]
            files.append(f"{name}.jpg")
            labels.append(label + 1)
    for file, (files, labels) in lists.items():
        cells = np.array(files, dtype=object)[:, None]
        savemat(root / file, {"file_list": cells, "annotation_list": cells, "labels": np.array(labels, float)[:, None]})
    return root


def ffhq(root: Path) -> Path:
    """images1024x1024/00000/00000.png and thumbnails128x128, all of other people."""
    for number, pictures in enumerate(painted(people=10, each=1, seed=4)):
        for kind, side in (("images1024x1024", 64), ("thumbnails128x128", 128)):
            written(pictures[0], root / kind / "00000" / f"{number:05d}.png", side, side)
    return root


def stylegan2(file: Path) -> Path:
    """A small StyleGAN2-ADA as its authors write it: pickled networks of classes that only their code has."""
    before = {name: sys.modules.get(name) for name in OFFICIAL}
    sys.modules.update(_modules())
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            nets = Generator(32, 12, 10, 2, 128, 6, None), Discriminator(32, 128, 6, None, 2)
        content = {
            "G": official(nets[0], "Generator", GENERATOR),
            "D": official(nets[1], "Discriminator", CRITIC),
            "G_ema": official(nets[0], "Generator", GENERATOR),
            "training_set_kwargs": easy({"class_name": "training.dataset.ImageFolderDataset", "resolution": 32}),
            "augment_pipe": None,
        }
        file.write_bytes(dumped(content))
    finally:
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module
    return file


OFFICIAL = ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util")


def _modules():
    def _reconstruct_persistent_obj(*_):
        raise AssertionError("executed")

    class EasyDict(dict):
        pass

    made = {name: types.ModuleType(name) for name in OFFICIAL}
    for name, content in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        setattr(made[name], content.__name__, content)
        content.__module__, content.__qualname__ = name, content.__name__
    return made


def saved(content, path: Path) -> Path:
    """As torch.save writes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path)
    return path


def weights(folder: Path, *architectures: str, size: int = 32) -> Path:
    """What networks begin with: torchvision's and timm's state dicts with another head, face.evoLVe's backbones.

    Files are called after the network: the published names hold the hash of the published contents.
    """
    for architecture in architectures:
        library, _, name = architecture.partition(":")
        with torch.random.fork_rng():
            torch.manual_seed(1)
            if library == "face":  # the backbone alone, whose own head is for 112 pixels
                saved(Backbone(18, 112, 8).state_dict(), folder / str(published_name(architecture)))
            else:
                saved(zoo.build(architecture, 10, size).net.state_dict(), folder / f"{name}.pth")
    return folder


def judge(file: Path, architecture: str = "torchvision:inception_v3", classes: int = PEOPLE, size: int = 48) -> Path:
    """An untrained judge, as a checkpoint of ours."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save(zoo.build(architecture, classes, size), file)
    return file


def facenet(file: Path) -> Path:
    """FaceNet in facenet-pytorch's layout."""
    return saved(FaceEmbedding(5).state_dict(), file)


def inception(file: Path) -> Path:
    """The Inception that FID is defined on, in pytorch-fid's layout."""
    return saved(InceptionFeatures().net.state_dict(), file)


# The networks of the paper at toy width: their own classes, with few channels and layers.


class ToyInception(nn.Module):
    """Branches side by side, and the last layer that torchvision's Inception-v3 has."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, side, padding=side // 2) for side in (1, 3, 5))
        self.fc = nn.Linear(24, classes)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(torch.cat([branch(x) for branch in self.branches], 1).relu().mean((2, 3)))


def _vgg(classes: int) -> nn.Module:
    net = models.VGG(
        models.vgg.make_layers([8, "M", 8, "M", 8, "M", 8, "M", 8, "M"], batch_norm=True), init_weights=False
    )
    net.classifier[0], net.classifier[3] = nn.Linear(8 * 49, 16), nn.Linear(16, 16)
    net.classifier[6] = nn.Linear(16, classes)
    return net


def _torchvision(name: str, classes: int, size: int | None, pretrained: bool):  # noqa: ARG001
    size = size or 32
    if name.startswith("resnet"):
        block = models.resnet.BasicBlock if name in ("resnet18", "resnet34") else models.resnet.Bottleneck
        net = models.ResNet(block, [1, 1, 2, 1], classes, width_per_group=2 if block.expansion > 1 else 64)
    elif name.startswith("densenet"):
        net = models.DenseNet(4, (2, 2, 2, 2), 8, bn_size=2, num_classes=classes)
    elif name.startswith("vgg"):
        net = _vgg(classes)
    elif name.startswith("vit"):
        net = models.VisionTransformer(size, 8, 2, 2, 16, 32, num_classes=classes)
    elif name.startswith("maxvit"):
        net = models.MaxVit((size, size), 8, 1, [8, 8, 8, 8], [2, 1, 1, 1], 4, 0.1, num_classes=classes)
    elif name.startswith("efficientnet"):
        rows = [models.efficientnet.MBConvConfig(2, 3, stride, 8, 8, 2, 1.0, 1.0) for stride in (1, 2, 2)]
        net = models.EfficientNet(rows, 0.1, num_classes=classes, last_channel=16)
    else:
        net = ToyInception(classes)
    return net, size


def _timm(name: str, classes: int, size: int | None, pretrained: bool):  # noqa: ARG001
    blocks = tuple(byobnet.ByoBlockCfg(type="rep", d=2, s=2, gs=0, c=8) for _ in range(3))
    attention = {"attn_layer": "se", "attn_kwargs": {"rd_ratio": 0.25}} if name.endswith("se") else {}
    return byobnet.ByobNet(byobnet.ByoModelCfg(blocks, stem_type="rep", stem_chs=8, **attention), classes), size or 32


def _face(name: str, classes: int, size: int | None, pretrained: bool):  # noqa: ARG001
    side = 112 if name == "facenet112" else 64
    return face.FaceNet(18, side, classes, 8), side


TOY_ZOO = {"torchvision": _torchvision, "timm": _timm, "face": _face}


def prior(root: Path) -> Path:
    """The small StyleGAN2, through the command line."""
    cli.main(["convert", str(stylegan2(root / "ffhq.pkl")), "--out", str(root / "prior"), "--crop", "26"])
    return root / "prior"


def settings(**values) -> list[str]:
    """Arguments of the command line."""
    told = [str(one) for pair in values.items() for one in pair]
    return ["--settings", *told]
