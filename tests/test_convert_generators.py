"""Published GANs become priors: files in their layouts, against forward passes written down here."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from lightleak import cli, priors
from lightleak.convert import PLAIN, Hints, convert
from lightleak.errors import UserError
from lightleak.priors.conditional64 import ConditionalGenerator, ConditionalPrior, ProjectionDiscriminator
from lightleak.priors.gan64 import Critic, GanPrior, Generator, InversionPrior, MinibatchDiscriminator

CLASSES = 3


def nets(kind):
    """Narrow ones; the published widths are 64."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = {
            "G": lambda: Generator(width=4),
            "GMI": lambda: Critic(width=4),
            "KED": lambda: MinibatchDiscriminator(width=4, classes=CLASSES),
            "PLG G": lambda: ConditionalGenerator(width=2, classes=CLASSES),
            "PLG D": lambda: ProjectionDiscriminator(width=2, classes=CLASSES),
        }[kind]()
    rng = torch.Generator().manual_seed(1)
    for name, value in made.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.copy_(torch.rand(value.shape, generator=rng) + 0.5)
    return made.eval()


def written(kind, path, new=False):
    """As published: KED-MI's state_dict with module. before each name, PLG-MI's model beside its optimiser."""
    state = nets(kind).state_dict()
    content = {"state_dict": {f"module.{name}": value for name, value in state.items()}}
    if kind.startswith("PLG"):
        content = {"model": state, "opt": {"state": {}, "param_groups": [{"lr": 2e-4, "betas": (0.0, 0.9)}]}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=new)
    return path


def pair(generator, critic, folder):
    return convert(written(generator, folder / "G.tar"), critic=written(critic, folder / "D.tar", new=True))


def norm(x, state, name):
    mean, var = (state[f"{name}.{part}"].view(1, -1, *[1] * (x.dim() - 2)) for part in ("running_mean", "running_var"))
    weight, bias = (
        state.get(f"{name}.{part}", torch.tensor(default)) for part, default in (("weight", 1.0), ("bias", 0.0))
    )
    weight, bias = (part.view(1, -1, *[1] * (x.dim() - 2)) for part in (weight, bias))
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def made_by_gmi(z, state):
    x = norm(z @ state["l1.0.weight"].T, state, "l1.1").relu().view(len(z), -1, 4, 4)
    for stage in range(3):
        x = F.conv_transpose2d(x, state[f"l2_5.{stage}.0.weight"], None, 2, 2, 1)
        x = norm(x, state, f"l2_5.{stage}.1").relu()
    return F.conv_transpose2d(x, state["l2_5.3.weight"], state["l2_5.3.bias"], 2, 2, 1).sigmoid()


def made_by_plg(z, classes, state):
    def conv(x, name):
        weight = state[f"{name}.weight"]
        return F.conv2d(x, weight, state[f"{name}.bias"], padding=weight.shape[-1] // 2)

    def conditional(x, name):
        scale, shift = (state[f"{name}.{part}.weight"][classes][:, :, None, None] for part in ("weights", "biases"))
        return (norm(x, state, name) * scale + shift).relu()

    def doubled(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    x = (z @ state["l1.weight"].T + state["l1.bias"]).view(len(z), -1, 4, 4)
    for block in (f"block{i}" for i in range(2, 6)):
        main = conv(doubled(conditional(x, f"{block}.b1")), f"{block}.c1")
        x = conv(conditional(main, f"{block}.b2"), f"{block}.c2") + conv(doubled(x), f"{block}.c_sc")
    return conv(norm(x, state, "b6").relu(), "conv6").tanh()


@pytest.mark.parametrize(("critic", "kind"), [("GMI", GanPrior), ("KED", InversionPrior)])
def test_gmi_and_kedmi(critic, kind, tmp_path):
    prior = pair("G", critic, tmp_path)
    assert isinstance(prior, kind)
    z = prior.sample(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.decode(z), made_by_gmi(z, nets("G").state_dict()))
    other = prior.critic if critic == "GMI" else prior.discriminator
    expected = nets(critic).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
    assert prior.realism(prior.decode(z)).isfinite().all()


def test_plgmi(tmp_path):
    prior = pair("PLG G", "PLG D", tmp_path)
    assert isinstance(prior, ConditionalPrior)
    assert (prior.classes, prior.latents, prior.span) == (CLASSES, 128, "unit")
    z, classes = prior.sample(3, torch.Generator().manual_seed(0)), torch.tensor([2, 0, 1])
    expected = made_by_plg(z, classes, nets("PLG G").state_dict()).clamp(0, 1)
    torch.testing.assert_close(prior.decode(z, classes), expected, rtol=1e-4, atol=1e-5)
    state = nets("PLG D").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in prior.discriminator.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "tensors"), [("G", 26), ("GMI", 16), ("KED", 19), ("PLG G", 73), ("PLG D", 67)]
)  # fmt: skip
def test_the_files_have_as_many_tensors_as_published(kind, tensors):
    assert len(nets(kind).state_dict()) == tensors


@pytest.mark.parametrize(
    ("generator", "critic", "told"),
    [
        ("G", "PLG D", "were not trained together"),
        ("PLG G", "GMI", "were not trained together"),
        ("G", None, "--critic FILE"),
        ("GMI", None, "convert the generator, and give this with --critic"),
        ("G", "G", "none of the 3 known formats"),
    ],
)
def test_pairs_that_are_none(generator, critic, told, tmp_path):
    file, other = written(generator, tmp_path / "G.tar"), critic and written(critic, tmp_path / "D.tar")
    with pytest.raises(UserError) as caught:
        convert(file, critic=other)
    assert told in str(caught.value)


def test_a_generator_with_a_stage_too_many(tmp_path):
    state = nets("PLG G").state_dict()
    torch.save({"model": {**state, "block4.c3.weight": torch.ones(2)}}, tmp_path / "G.pth")
    with pytest.raises(UserError, match=r"does not fit its architecture: block4\.c3\.weight is not in the network"):
        convert(tmp_path / "G.pth", critic=written("PLG D", tmp_path / "D.tar"))


def test_the_command_line(tmp_path, capsys):
    files = [written(kind, tmp_path / f"{kind}.tar") for kind in ("G", "GMI")]
    cli.main(["convert", str(files[0]), "--critic", str(files[1]), "--out", str(tmp_path / "prior")])
    assert "a prior of 64 x 64 images, with a discriminator" in " ".join(capsys.readouterr().out.split())
    prior = priors.load(tmp_path / "prior")
    z = prior.sample(2, torch.Generator())
    assert torch.equal(prior.decode(z), convert(files[0], critic=files[1]).decode(z))


def test_options_of_other_files(tmp_path):
    file, critic = written("G", tmp_path / "G.tar"), written("GMI", tmp_path / "D.tar")
    (tmp_path / "ffhq.pkl").write_bytes(b"\x80\x03}.")
    for arguments, told in (
        ((file, PLAIN, critic, {"crop": 32}), "no StyleGAN2 file, so --crop has no meaning"),
        ((file, Hints(size=32), critic, {}), "is of a GAN, which none of the options for classifiers fits"),
        ((tmp_path / "ffhq.pkl", Hints(size=32), None, {}), "is a StyleGAN2 file, which none of the options"),
        ((tmp_path / "ffhq.pkl", PLAIN, critic, {}), "is a StyleGAN2 file, which none of the options"),
    ):
        *given, usage = arguments
        with pytest.raises(UserError, match=told):
            convert(*given, **usage)
    assert convert(file, PLAIN, critic, crop=None, psi=0.5, space="w").size == 64
