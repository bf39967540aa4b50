"""A miniature of all that the paper's studies need, in the layouts and containers in which it is published."""

import sys
import types
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.io import savemat
from test_foreign import dumped, easy, official

from lightleak import cli
from lightleak.data import faces
from lightleak.models import zoo
from lightleak.models.classifier import save
from lightleak.models.face import Backbone
from lightleak.models.facenet import FaceEmbedding
from lightleak.models.inception import InceptionFeatures
from lightleak.models.starting import published_name
from lightleak.priors.stylegan2 import Discriminator, Generator

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
    """What networks begin with: torchvision's state dicts with another head, face.evoLVe's backbones at 112 pixels.

    Files are called after the network: the published names hold the hash of the published contents.
    """
    for architecture in architectures:
        library, _, name = architecture.partition(":")
        with torch.random.fork_rng():
            torch.manual_seed(1)
            if library == "face":  # the backbone alone, whose own head is for 112 pixels
                depth = 152 if name == "ir152" else 50
                saved(Backbone(depth, 112).state_dict(), folder / str(published_name(architecture)))
                continue
            built = zoo.build(architecture, 10, None if "maxvit" in name else 80 if "inception" in name else size)
        saved(built.net.state_dict(), folder / f"{name}.pth")
    return folder


def judge(file: Path, classes: int = PEOPLE, size: int = 80) -> Path:
    """An untrained Inception-v3 that sees few pixels, as a checkpoint of ours."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save(zoo.build("torchvision:inception_v3", classes, size), file)
    return file


def narrow_judge(file: Path, classes: int = PEOPLE) -> Path:
    """A judge of toy width."""
    with torch.random.fork_rng():
        torch.manual_seed(2)
        save(zoo.build("face:ir18-narrow", classes, 32), file)
    return file


def facenet(file: Path) -> Path:
    """FaceNet in facenet-pytorch's layout."""
    return saved(FaceEmbedding(5).state_dict(), file)


def inception(file: Path) -> Path:
    """The Inception that FID is defined on, in pytorch-fid's layout."""
    return saved(InceptionFeatures().net.state_dict(), file)


def prior(root: Path) -> Path:
    """The small StyleGAN2, through the command line."""
    cli.main(["convert", str(stylegan2(root / "ffhq.pkl")), "--out", str(root / "prior"), "--crop", "26"])
    return root / "prior"


def settings(**values) -> list[str]:
    """Arguments of the command line."""
    told = [str(one) for pair in values.items() for one in pair]
    return ["--settings", *told]


