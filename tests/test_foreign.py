"""Official pickles are read without executing them: files in that layout, damaged ones, hostile ones."""

import math
import pickle
import random
import struct
import sys
import types
import warnings
import zipfile
from collections import OrderedDict
from io import BytesIO

import numpy as np
import pytest
import torch

from lightleak import cli
from lightleak.errors import UserError
from lightleak.models import foreign
from lightleak.models.foreign import networks
from lightleak.priors import load
from lightleak.priors.official import convert
from lightleak.priors.stylegan2 import Discriminator, Generator, StyleGAN2Prior

GENERATOR = {
    "c_dim": 0,
    "img_resolution": 8,
    "img_channels": 3,
    "z_dim": 4,
    "w_dim": 3,
    "mapping_kwargs": {"num_layers": 2, "w_avg_beta": 0.995},
    "synthesis_kwargs": {"channel_base": 16, "channel_max": 4, "num_fp16_res": 4, "conv_clamp": 256},
}
CRITIC = {
    "c_dim": 0,
    "img_resolution": 8,
    "img_channels": 3,
    "channel_base": 16,
    "channel_max": 4,
    "conv_clamp": 256,
    "block_kwargs": {},
    "mapping_kwargs": {},
    "epilogue_kwargs": {"mbstd_group_size": 2},
}


class Official:
    """Something that pickles as the official persistent classes do."""

    def __init__(self, name, state, **changes):
        self.meta = {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": name}
        self.meta |= {"state": state, **changes}

    def __reduce__(self):
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


@pytest.fixture(autouse=True)
def modules(monkeypatch):
    """The modules that the official files refer to, so that they can be written; gone while they are read."""

    def _reconstruct_persistent_obj(*_):
        raise AssertionError("executed")

    class EasyDict(dict):
        pass

    made = {}
    for name, content in (("torch_utils.persistence", _reconstruct_persistent_obj), ("dnnlib.util", EasyDict)):
        made[name.split(".")[0]] = types.ModuleType(name.split(".")[0])
        made[name] = types.ModuleType(name)
        setattr(made[name], content.__name__, content)
        content.__module__, content.__qualname__ = name, content.__name__
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)


def easy(values):
    return sys.modules["dnnlib.util"].EasyDict(values)


def official(module, name, arguments=None):
    """One of our modules as an official object tree."""
    frozen = {key: torch.nn.Parameter(value.data, requires_grad=False) for key, value in module._parameters.items()
              if value is not None}  # fmt: skip
    state = {
        "training": False,
        "_parameters": OrderedDict(frozen),
        "_buffers": OrderedDict(module._buffers),
        "_non_persistent_buffers_set": set(),
        "_forward_hooks": OrderedDict(),
        "_modules": OrderedDict({key: official(part, "Layer") for key, part in module._modules.items() if part}),
        "act_gain": np.float64(math.sqrt(2)),
        "activation": "lrelu",
        "_init_args": (),
        "_init_kwargs": easy(arguments or {}),
    }
    return Official(name, state)


def pair():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Generator(8, 4, 3, 2, 16, 4, 256), Discriminator(8, 16, 4, 256, 2)


def dumped(content, protocol=3):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that its storages are of the past; so are these files
        return pickle.dumps(content, protocol)


def whole(generator=GENERATOR, critic=CRITIC, edit=None):
    nets = pair()
    content = {
        "G": official(nets[0], "Generator", generator),
        "D": official(nets[1], "Discriminator", critic),
        "G_ema": official(nets[0], "Generator", generator),
        "training_set_kwargs": easy({"class_name": "training.dataset.ImageFolderDataset", "resolution": 8}),
        "augment_pipe": None,
    }
    if edit:
        edit(content)
    return content


def state(content, *path, network="G_ema"):
    """The attributes of a part of a network."""
    found = content[network].meta["state"]
    for name in path:
        found = found["_modules"][name].meta["state"]
    return found


# Whole files


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_an_official_file_becomes_our_prior(protocol, tmp_path, monkeypatch):
    file = tmp_path / "faces.pkl"
    file.write_bytes(dumped(whole(), protocol))
    for name in ("torch_utils", "torch_utils.persistence", "dnnlib", "dnnlib.util"):
        monkeypatch.delitem(sys.modules, name)
    prior = convert(file, crop=6, psi=0.7)
    generator, critic = pair()
    for mine, theirs in ((prior.generator, generator), (prior.critic, critic)):
        expected, found = theirs.state_dict(), mine.state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[name], value) for name, value in expected.items())
        assert mine.settings == theirs.settings
    assert (prior.size, prior.psi) == (6, 0.7)
    assert prior.decode(prior.sample(2, torch.Generator())).isfinite().all()


def test_the_parts_of_a_file(tmp_path):
    file = tmp_path / "f.pkl"
    file.write_bytes(dumped(whole({**GENERATOR, "gain": np.float64(1.25)})))
    found = networks(file)
    assert list(found) == ["G_ema", "D"]
    assert found["G_ema"].kind == "Generator"
    assert found["G_ema"].arguments["gain"] == 1.25
    assert set(networks(file, ("G",))) == {"G"}
    with pytest.raises(UserError, match="holds none of the networks X"):
        networks(file, ("X",))


def test_old_names_and_other_layouts_in_memory(tmp_path):
    def edit(content):
        weights = state(content, "synthesis", "b8", "conv0")["_parameters"]
        turned = weights["weight"].data.contiguous(memory_format=torch.channels_last)
        weights["weight"] = torch.nn.Parameter(turned, requires_grad=False)
        weights["bias"] = torch.nn.Parameter(torch.cat([torch.ones(3), weights["bias"].data])[3:].half())
        del content["D"]
        filters = state(content, "synthesis", "b4")["_buffers"]
        filters.clear()

    file = tmp_path / "f.pkl"
    file.write_bytes(dumped(whole(edit=edit)).replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    prior = convert(file)
    assert prior.critic is None
    expected = pair()[0].state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in prior.generator.state_dict().items())


# Files of other networks


def refuse(content, told, tmp_path, protocol=3):
    file = tmp_path / "hostile.pkl"
    file.write_bytes(content if isinstance(content, bytes) else dumped(content, protocol))
    with pytest.raises(UserError) as caught:
        convert(file)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 600
    assert [left.name for left in tmp_path.iterdir()] == ["hostile.pkl"]  # nothing of it was executed


def set_weight(value, *path, name="weight"):
    def edit(content):
        state(content, *path)["_parameters"][name] = value

    return edit


@pytest.mark.parametrize(
    ("generator", "critic", "told"),
    [
        ({"c_dim": 10}, {}, "c_dim is 10, not 0"),
        ({"img_channels": 1}, {}, "img_channels is 1, not 3"),
        ({"z_dim": 10**9}, {}, "latents must be a whole number from 1 to 4096"),
        ({"img_resolution": 2**40}, {}, "size must be one of"),
        ({"w_dim": 5}, {}, "mapping.fc0.weight is (3, 4), not (5, 4)"),
        ({"magic": 1}, {}, "the setting 'magic' is unknown"),
        ({"mapping_kwargs": 3}, {}, "mapping_kwargs is no table"),
        ({"mapping_kwargs": {"activation": "relu"}}, {}, "activation is 'relu', not 'lrelu'"),
        ({"mapping_kwargs": {"num_layers": 3}}, {}, "mapping.fc2.weight is missing"),
        ({"mapping_kwargs": {"num_layers": 1}}, {}, "mapping.fc1.weight is not in the network"),
        ({"synthesis_kwargs": {"architecture": "orig"}}, {}, "architecture is 'orig', not 'skip'"),
        ({}, {"architecture": "skip"}, "architecture is 'skip', not 'resnet'"),
        ({}, {"img_resolution": 16}, "b16.fromrgb.weight is missing"),
        ({}, {"epilogue_kwargs": {"mbstd_group_size": None}}, "group must be a whole number"),
    ],
)
def test_other_networks_are_refused(generator, critic, told, tmp_path):
    refuse(whole({**GENERATOR, **generator}, {**CRITIC, **critic}), told, tmp_path)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda content: content.pop("G_ema"), "holds no G_ema"),
        (lambda content: content["G_ema"].meta.update(version=5), "version 6"),
        (lambda content: content["G_ema"].meta.update(type="function"), "persistent class"),
        (lambda content: content["G_ema"].meta.update(class_name="Discriminator"), "expected a Generator"),
        (lambda content: content.update(G_ema=3), "G_ema is no network"),
        (lambda content: state(content).pop("_init_kwargs"), "does not say what it was built with"),
        (lambda content: state(content)["_init_kwargs"].pop("z_dim"), "does not say its z_dim"),
        (set_weight(torch.full((3, 4), torch.nan), "mapping", "fc0"), "not finite, in mapping.fc0.weight"),
        (set_weight(torch.ones(3, 4), "mapping", "fc0", name="two\nlines"), "no table of names"),
        (set_weight("text", "mapping", "fc0"), "mapping.fc0.weight is no tensor"),
        (lambda content: state(content, "synthesis", "b4")["_buffers"].update(resample_filter=torch.ones(4, 4)),
         "another filter"),
    ],
)  # fmt: skip
def test_changed_files_are_refused(edit, told, tmp_path):
    refuse(whole(edit=edit), told, tmp_path)


# Files that attack the reader. The dangerous names would leave a file in the working folder.


class Touch:
    def __reduce__(self):
        return eval, ("open('touched', 'w')",)


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def pkl(*parts):
    return b"\x80\x04" + b"".join(parts) + b"."


def stored(values):
    """The bytes that torch.save writes for a storage."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return values.storage().__reduce__()[1][0]


class Claim:
    """A tensor as its parts say."""

    def __init__(self, data, offset, shape, strides):
        self.parts = (data, offset, shape, strides)

    def __reduce__(self):
        data, *rest = self.parts
        return torch._utils._rebuild_tensor_v2, (Bytes(data), *rest, False, OrderedDict())


class Bytes:
    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


def weight(value):
    return whole(edit=set_weight(value, "mapping", "fc0"))


def zipped():
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touch()))
    return file.getvalue()


def shared_settings():
    inner = ["laugh"]
    for _ in range(30):
        inner = [inner] * 10
    return whole({**GENERATOR, "mapping_kwargs": {"num_layers": inner}})


def shared_modules():
    def edit(content):
        inner = state(content)
        for _ in range(18):
            part = Official("Layer", {"_modules": dict.fromkeys("abcd", Official("Layer", inner))})
            inner = part.meta["state"]
        state(content)["_modules"] = inner["_modules"]

    return whole(edit=edit)


def endless_list():
    """A module in whose place is a list that holds itself."""
    content = whole()
    state(content, "mapping")["_modules"]["again"] = "HERE"
    return dumped(content).replace(text("HERE"), b"]r\xff\xff\x00\x00j\xff\xff\x00\x00a")


def many_names():
    values = torch.ones(1000)

    def edit(content):
        tensor = torch.nn.Parameter(values, requires_grad=False)
        state(content, "mapping", "fc0")["_parameters"].update({f"w{i}": tensor for i in range(100)})

    return whole(edit=edit)


def huge_storage():
    data = stored(torch.ones(12))
    return data[:-56] + struct.pack("<q", 2**60) + data[-48:]


GOOD = stored(torch.ones(12))
HOSTILE = {
    "eval in place of a network": (lambda: whole(edit=lambda c: c.update(G_ema=Touch())), "'builtins.eval'"),
    "eval beside the networks": (lambda: whole(edit=lambda c: c.update(extra=Touch())), "'builtins.eval'"),
    "eval deep in a module": (lambda: whole(edit=lambda c: state(c, "mapping").update(x=Touch())), "'builtins.eval'"),
    "eval as a weight": (lambda: weight(Touch()), "'builtins.eval'"),
    "eval in a storage": (lambda: weight(Claim(pickle.dumps(Touch()), 0, (3, 4), (4, 1))), "'builtins.eval'"),
    "eval in the fifth pickle of a storage": (
        lambda: weight(Claim(GOOD[: GOOD.rindex(b"\x80\x02]")] + pickle.dumps(Touch(), 2), 0, (3, 4), (4, 1))),
        "'__builtin__.eval'",
    ),
    "a tensor within a storage": (
        lambda: weight(Claim(dumped(torch.ones(2)), 0, (3, 4), (4, 1))), "'torch._utils._rebuild_tensor_v2'"
    ),
    "os.system": (lambda: pkl(b"cposix\nsystem\n", text("touch touched"), b"\x85R"), "'posix.system'"),
    "a name from the stack": (lambda: pkl(text("os"), text("system"), b"\x93", text("x"), b"\x85R"), "'os.system'"),
    "an attribute of an allowed name": (
        lambda: pkl(text("collections"), text("OrderedDict.fromkeys"), b"\x93", text("x"), b"\x85R"), "'collections.Ord"
    ),
    "a name that is a number": (lambda: pkl(text("os"), b"K\x01", b"\x93"), "names something by no name"),
    "a name over two lines": (lambda: pkl(text("o\ns"), text("x\r\nGood news"), b"\x93"), r"'o\ns.x\r\n"),
    "an instance": (lambda: pkl(b"(", text("touch touched"), b"ios\nsystem\n"), "opcode INST"),
    "an object": (lambda: pkl(b"(cos\nsystem\n", text("touch touched"), b"o"), "'os.system'"),
    "a new object": (lambda: pkl(b"csubprocess\nPopen\n", text("touch"), b"\x85\x81"), "'subprocess.Popen'"),
    "keyword arguments": (lambda: pkl(b"cdnnlib.util\nEasyDict\n", b")}\x92"), "opcode NEWOBJ_EX"),
    "an extension": (lambda: pkl(b"\x82\x01"), "opcode EXT1"),
    "a buffer": (lambda: pkl(b"\x97"), "opcode NEXT_BUFFER"),
    "a persistent object": (lambda: pkl(text("x"), b"Q"), "outside of itself"),
    "a persistent name": (lambda: pkl(b"Px\n"), "opcode PERSID"),
    "state of a dictionary": (lambda: pkl(b"}}b"), "sets the state"),
    "state of a call": (lambda: pkl(b"ctorch._utils\n_rebuild_parameter\n", b")R}b"), "sets the state"),
    "a filled OrderedDict": (lambda: pkl(b"ccollections\nOrderedDict\n", b"]\x85R"), "in an unknown way"),
    "a call of a string": (lambda: pkl(text("os"), b")R"), "calls something that is no name"),
    "a call without a tuple": (lambda: pkl(b"ccollections\nOrderedDict\n", b"]R"), "calls something that is no name"),
    "takes from an empty stack": (lambda: pkl(b"\x87"), "takes what is not there"),
    "takes across a mark": (lambda: pkl(b"K\x01(\x85"), "takes what is not there"),
    "a collection without a beginning": (lambda: pkl(b"]K\x01e"), "takes what is not there"),
    "an end in the middle": (lambda: pkl(b"}}"), "ends in the middle"),
    "no content": (lambda: pkl(), "ends in the middle"),
    "recalls nothing": (lambda: pkl(b"h\x07"), "recalls what it never said"),
    "remembers nothing": (lambda: pkl(b"\x94"), "remembers what is not there"),
    "odd pairs": (lambda: pkl(b"}(", text("x"), b"u"), "keys are no names"),
    "fills a number": (lambda: pkl(b"K\x01", text("x"), text("y"), b"s"), "no dict"),
    "appends to a dictionary": (lambda: pkl(b"}K\x01a"), "no list"),
    "a deep key": (lambda: pkl(b"})", b"\x85" * 100_000, b"K\x01s"), "keys are no names"),
    "a deep value": (lambda: pkl(b"}", text("G_ema"), b")", b"\x85" * 100_000, b"s"), "G_ema is no network"),
    "a memo of 2^32": (lambda: pkl(b"}r\xff\xff\xff\xff"), "holds none"),
    "endless steps": (lambda: pkl(b"N0" * 600), "opcode POP"),
    "too many steps": (lambda: pkl(b"}", b"q\x00" * 300_001), "more than 300,000 steps"),
    "bytes of 2^62": (lambda: pkl(b"\x8e" + struct.pack("<Q", 2**62)), "cut off"),
    "bytes of 2^64 - 1": (lambda: pkl(b"\x8e" + struct.pack("<Q", 2**64 - 1)), "cut off"),
    "text of 2^62": (lambda: pkl(b"\x8d" + struct.pack("<Q", 2**62)), "cut off"),
    "a number of 2^31 bytes": (lambda: pkl(b"\x8b" + struct.pack("<i", 2**31 - 1)), "cut off"),
    "a number of a million digits": (lambda: pkl(b"L" + b"9" * 1_000_000 + b"L\n"), "cut off or damaged"),
    "text that is none": (lambda: pkl(b"X\x02\x00\x00\x00\xff\xfe"), "cut off or damaged"),
    "an unknown opcode": (lambda: pkl(b"\xff"), "cut off or damaged"),
    "shared settings (10^30)": (shared_settings, "settings"),
    "shared modules (4^36)": (shared_modules, "parts or 20 levels"),
    "a list that holds itself": (endless_list, "mapping.again is no network"),
    "the same bytes under many names": (many_names, "more values than the file holds"),
    "a tensor of 10^12 values": (lambda: weight(Claim(GOOD, 0, (10**6, 10**6), (0, 0))), "more values than it has"),
    "a tensor beyond its storage": (lambda: weight(Claim(GOOD, 1, (3, 4), (4, 1))), "more values than it has"),
    "a negative stride": (lambda: weight(Claim(GOOD, 0, (3, 4), (-4, 1))), "impossible shape"),
    "a negative offset": (lambda: weight(Claim(GOOD, -1, (3, 4), (4, 1))), "impossible shape"),
    "an offset of 2^70": (lambda: weight(Claim(GOOD, 2**70, (3, 4), (4, 1))), "impossible shape"),
    "a size that is text": (lambda: weight(Claim(GOOD, 0, (3, "4"), (4, 1))), "impossible shape"),
    "empty with a size of 2^70": (lambda: weight(Claim(GOOD, 0, (0, 2**70), (4, 1))), "impossible shape"),
    "a stride of 2^70": (lambda: weight(Claim(GOOD, 0, (1, 4), (2**70, 1))), "impossible shape"),
    "one value of many": (lambda: weight(Claim(stored(torch.ones(2000)), 0, (1, 1), (1, 1))), "uses little"),
    "a storage cut off": (lambda: weight(Claim(GOOD[:-1], 0, (3, 4), (4, 1))), "damaged"),
    "a storage that claims 2^60 values": (lambda: weight(Claim(huge_storage(), 0, (3, 4), (4, 1))), "damaged"),
    "TensorFlow": (lambda: pkl(b"cdnnlib.tflib.network\nNetwork\n", b")\x81"), "TensorFlow pickle"),
    "a list": (lambda: pkl(b"]"), "no dictionary of networks"),
    "a zip file": (zipped, "is not what StyleGAN2-ADA writes"),
    "nothing": (lambda: b"", "is not what StyleGAN2-ADA writes"),
    "text": (lambda: b"<!DOCTYPE html>\n<html>", "is not what StyleGAN2-ADA writes"),
    "an old pickle": (lambda: pickle.dumps(Touch(), 0), "is not what StyleGAN2-ADA writes"),
    "one byte": (lambda: b"\x80", "cut off"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, told = HOSTILE[name]
    refuse(make(), told, tmp_path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path):
    data = dumped(whole())
    assert len(data) > 20_000
    for length in random.Random(0).sample(range(len(data)), 60):
        file = tmp_path / "cut.pkl"
        file.write_bytes(data[:length])
        with pytest.raises(UserError, match=r"cut off|is not what StyleGAN2-ADA writes|holds none"):
            networks(file)


def test_random_damage_never_escapes(tmp_path):
    data, draw = dumped(whole(), 4), random.Random(0)
    file = tmp_path / "damaged.pkl"
    refused = whole_after_all = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 3, 10, 100])):
            damaged[draw.randrange(len(data))] = draw.randrange(256)
        file.write_bytes(damaged)
        try:
            convert(file)
        except UserError as error:
            refused += "\n" not in str(error)
        else:
            whole_after_all += 1  # some bytes are of no consequence
    assert refused + whole_after_all == 150
    assert refused > 50


def test_missing_and_giant_files(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        networks(tmp_path / "none.pkl")
    with pytest.raises(UserError, match=r"cannot read .*directory"):
        networks(tmp_path)
    (tmp_path / "big.pkl").write_bytes(dumped(whole()))
    monkeypatch.setattr(foreign, "MOST_BYTES", 1000)
    with pytest.raises(UserError, match="is larger than"):
        networks(tmp_path / "big.pkl")


def test_the_command_line_converts(tmp_path, capsys):
    file, out = tmp_path / "faces.pkl", tmp_path / "faces"
    file.write_bytes(dumped(whole()))
    cli.main(["convert", str(file), "--out", str(out), "--crop", "6", "--space", "w+", "--cutoff", "2"])
    told = " ".join(capsys.readouterr().out.split())
    assert "a prior of 6 x 6 images, without a discriminator of these" in told  # the file's judges whole images
    prior = load(out)
    assert isinstance(prior, StyleGAN2Prior)
    latents = prior.sample(2, torch.Generator())
    assert torch.equal(prior.decode(latents), convert(file, crop=6, space="w+", cutoff=2).decode(latents))
    file.write_bytes(pickle.dumps(Touch()))
    with pytest.raises(SystemExit) as end:
        cli.main(["convert", str(file), "--out", str(tmp_path / "other")])
    assert end.value.code == 2
    assert "builtins.eval" in capsys.readouterr().err
    assert sorted(left.name for left in tmp_path.iterdir()) == ["faces", "faces.pkl"]
