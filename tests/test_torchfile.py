"""What torch.save wrote is read without executing it: both containers, whole modules, damaged files, hostile ones."""

import io
import pickle
import random
import struct
import sys
import tarfile
import types
import warnings
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from lightleak import cli
from lightleak.errors import UserError
from lightleak.models import torchfile
from lightleak.models.torchfile import checkpoint

TENSORS = OrderedDict(
    {
        "conv.weight": torch.arange(24.0).view(2, 3, 2, 2),
        "norm.running_mean": torch.tensor([0.5, -2.0]),
        "norm.num_batches_tracked": torch.tensor(7),
        "half": torch.tensor([1.5, -0.25], dtype=torch.float16),
        "brain": torch.tensor([3.0], dtype=torch.bfloat16),
        "transposed": torch.arange(6.0).view(2, 3).t(),
        "part": torch.arange(10.0)[4:7],
    }
)


def saved(content, new):
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch on its old storages; so are these files
        torch.save(content, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


def read(data, tmp_path):
    file = tmp_path / "file.pth"
    file.write_bytes(data)
    return checkpoint(file)


def same(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


containers = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])


@containers
def test_a_state_dict(new, tmp_path):
    found = read(saved(TENSORS, new), tmp_path)
    same(found.tensors, TENSORS)
    assert (found.place, found.beside) == ("", {})
    assert all(value.is_contiguous() for value in found.tensors.values())


@containers
def test_a_training_state(new, tmp_path):
    """PPA's and RoLSS's layout, with an optimiser beside it and NumPy's numbers as accuracies."""
    net = nn.Linear(3, 2)
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    content = {
        "epoch": 99,
        "model_state_dict": net.state_dict(),  # with _metadata
        "optimizer_state_dict": optimiser.state_dict(),
        "accuracy": np.float64(0.9379),
        "loss": np.float32(0.25),
        "seen": np.int64(3009),
        "name": "resnet101",
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    found = read(saved(content, new), tmp_path)
    same(found.tensors, net.state_dict())
    assert found.place == "model_state_dict"
    assert found.beside == {"epoch": 99, "accuracy": 0.9379, "loss": 0.25, "seen": 3009, "name": "resnet101"}


@containers
@pytest.mark.parametrize("place", ["state_dict", "model", "net"])
def test_where_the_tensors_may_be(place, new, tmp_path):
    found = read(
        saved({place: TENSORS, "opt": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}}, new), tmp_path
    )
    same(found.tensors, TENSORS)
    assert found.place == place


@pytest.fixture
def classify(monkeypatch):
    """A module of the published projects, for whole pickled networks; gone while they are read."""
    module = types.ModuleType("classify")

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.feature = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
            self.fc_layer = nn.Linear(4, 2)
            self.register_buffer("none", None)

    Net.__module__, Net.__qualname__ = "classify", "Net"
    module.Net = Net
    monkeypatch.setitem(sys.modules, "classify", module)
    return module


@containers
@pytest.mark.parametrize("inside", [False, True])
def test_a_whole_module(inside, new, classify, monkeypatch, tmp_path):
    """torch.save(nn.DataParallel(net)): before torch 1.6 with the classes' source code beside them."""
    net = nn.DataParallel(classify.Net())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there is no source of this class
        data = saved({"model": net, "epoch": 3} if inside else net, new)
    monkeypatch.delitem(sys.modules, "classify")
    found = read(data, tmp_path)
    same(found.tensors, net.state_dict())
    assert next(iter(found.tensors)) == "module.feature.0.weight"
    assert found.beside == ({"epoch": 3} if inside else {})


@containers
def test_tied_weights_are_read_twice(new, tmp_path):
    weight = torch.arange(2000.0)
    found = read(saved({"a": weight, "b": weight, "c": weight[5:9]}, new), tmp_path).tensors
    same(found, {"a": weight, "b": weight, "c": weight[5:9]})
    found["a"].zero_()
    assert torch.equal(found["b"], weight)


# Files that are none, or damaged


class Touch:
    def __reduce__(self):
        return eval, ("open('touched', 'w')",)


class Claim:
    """A tensor as its parts say, on a storage of 12 values."""

    def __init__(self, offset, shape, strides):
        self.rest = (offset, shape, strides)

    def __reduce__(self):
        return torch._utils._rebuild_tensor_v2, (torch.arange(12.0).untyped_storage(), *self.rest, False, OrderedDict())


def zipped(pickled, storages=(), compression=zipfile.ZIP_STORED, root="archive/", **more):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr(f"{root}data.pkl", pickled)
        for key, values in dict(storages).items():
            archive.writestr(f"{root}data/{key}", values)
        for name, values in more.items():
            archive.writestr(root + name.replace("_", "."), values)
    return file.getvalue()


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value):
    return b"J" + struct.pack("<i", value) if value < 2**31 else b"\x8a\x09" + value.to_bytes(9, "little")


def stored(kind="torch\nFloatStorage", key="0", count=12):
    return b"(" + text("storage") + b"c" + kind.encode() + b"\n" + text(key) + text("cpu") + number(count) + b"tQ"


def tensor(storage=None, offset=0, shape=(3, 4), strides=(4, 1), function="torch._utils\n_rebuild_tensor_v2"):
    sizes = [b"(" + b"".join(map(number, each)) + b"t" for each in (shape, strides)]
    storage = stored() if storage is None else storage
    parts = b"(" + storage + number(offset) + sizes[0] + sizes[1] + b"\x89" + b"ccollections\nOrderedDict\n)Rt"
    return b"c" + function.encode() + b"\n" + parts + b"R"


def holding(value, name="weight"):
    return b"\x80\x02}" + text(name) + value + b"s."


def content(value, name="weight", values=bytes(48), **more):
    return zipped(holding(value, name), {"0": values}, **more)


def legacy(pickled, keys=("0",), values=b"\x0c" + bytes(55), magic=None, little=True):
    parts = [magic or 0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": little}]
    begin = b"".join(pickle.dumps(part, 2) for part in parts)
    return begin + pickled + pickle.dumps(list(keys), 2) + values


def many(count):
    each = tensor(stored(count=1200), shape=(30, 40), strides=(40, 1))
    parts = b"".join(text(f"w{i}") + each + b"s" for i in range(count))
    return zipped(b"\x80\x02}" + parts + b".", {"0": bytes(4800)})


def tower(level):
    """Modules in modules, each four times: small on disk, 4^18 when walked."""
    parts = b""
    if level:
        recalled = b"h" + bytes([level])
        parts = text("a") + tower(level - 1) + b"q" + bytes([level]) + b"s"
        parts += b"".join(text(name) + recalled + b"s" for name in "bcd")
    return b"ctorch.nn.modules.linear\nIdentity\n)\x81}" + text("_modules") + b"}" + parts + b"sb"


def tarred():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"), io.BytesIO())
    return file.getvalue()


GLOBAL = b"cposix\nsystem\n"
HOSTILE = {
    "eval as a weight (zip)": (lambda: saved({"weight": Touch()}, True), "'__builtin__.eval'"),
    "eval as a weight (legacy)": (lambda: saved({"weight": Touch()}, False), "'__builtin__.eval'"),
    "eval beside a state dict": (lambda: saved({"state_dict": TENSORS, "extra": Touch()}, True), "'__builtin__.eval'"),
    "eval in an optimiser": (lambda: saved({"model": TENSORS, "opt": [Touch()]}, False), "'__builtin__.eval'"),
    "eval as the whole file": (lambda: saved(Touch(), True), "'__builtin__.eval'"),
    "eval before the magic number": (lambda: pickle.dumps(Touch(), 2), "'__builtin__.eval'"),
    "eval among the keys": (lambda: legacy(holding(tensor()), [Touch()]), "'__builtin__.eval'"),
    "os.system": (lambda: content(GLOBAL + text("touch touched") + b"\x85R"), "'posix.system'"),
    "os.system as a storage's type": (lambda: content(tensor(stored("posix\nsystem"))), "'posix.system'"),
    "os.system as a module's class": (
        lambda: content(b"(" + text("module") + GLOBAL + text("x") + text("y") + b"tQ)\x81"), "'posix.system'"
    ),
    "a name in an allowed package's name": (lambda: content(b"ctorch.nn.modules_\nx\n"), "'torch.nn.modules_.x'"),
    "torch.load": (lambda: content(b"ctorch.serialization\nload\n" + text("x") + b"\x85R"), "serialization.load'"),
    "torch.hub": (lambda: content(b"ctorch.hub\nload\n" + text("x") + b"\x85R"), "'torch.hub.load'"),
    "numpy.load": (lambda: content(b"cnumpy\nload\n" + text("x") + b"\x85R"), "'numpy.load'"),
    "getattr": (lambda: content(b"cbuiltins\ngetattr\n"), "'builtins.getattr'"),
    "state of a dictionary": (lambda: content(b"}}" + text("__class__") + b"Nsb"), "sets the state"),
    "state of a tensor": (lambda: content(tensor() + b"}b"), "sets the state"),
    "state of an OrderedDict": (lambda: content(b"ccollections\nOrderedDict\n)R}" + text("x") + b"Nsb"), "sets the"),
    "an instance": (lambda: content(b"(" + text("x") + b"ios\nsystem\n"), "opcode INST"),
    "an extension": (lambda: content(b"\x82\x01"), "opcode EXT1"),
    "keyword arguments": (lambda: content(b"ctorch.nn.modules.linear\nLinear\n)}\x92"), "opcode NEWOBJ_EX"),
    "too many steps": (lambda: zipped(b"\x80\x02}" + b"q\x00" * 300_001 + b".", {}), "more than 300,000 steps"),
    "shared modules (4^18)": (lambda: zipped(b"\x80\x02" + tower(18) + b"."), "parts or 20 levels"),
    "a name over two lines": (lambda: content(tensor(), "a\nb"), "no names"),
    "a name of a megabyte": (lambda: content(tensor(), "a" * 2**20), "no names"),
    "a negative stride": (lambda: content(tensor(strides=(-4, 1))), "impossible shape"),
    "a negative offset": (lambda: content(tensor(offset=-1)), "impossible shape"),
    "a shape of 2^60": (lambda: content(tensor(shape=(2**60, 1), strides=(0, 0))), "impossible shape"),
    "10^12 values of one": (lambda: content(tensor(shape=(10**6, 10**6), strides=(0, 0))), "more values than it has"),
    "beyond its storage": (lambda: content(tensor(offset=1)), "more values than it has"),
    "no shape": (lambda: content(b"ctorch._utils\n_rebuild_tensor_v2\n(" + stored() + b"NNNtR"), "is no tensor"),
    "a storage of 2^60 values": (lambda: content(tensor(stored(count=2**60))), "no storage"),
    "a storage of 2^39 values": (lambda: content(tensor(stored(count=2**39))), "holds 48 bytes, not"),
    "a storage of 2^39 values (legacy)": (lambda: legacy(holding(tensor(stored(count=2**39)))), "values are not where"),
    "a storage that is not there": (lambda: content(tensor(stored(key="1"))), "'archive/data/1' is missing"),
    "a storage outside": (lambda: content(tensor(stored(key="../../../etc/passwd"))), "is missing"),
    "a storage that is too short": (lambda: content(tensor(), values=bytes(47)), "holds 47 bytes, not 48"),
    "a persistent number": (lambda: content(tensor(b"K\x01Q")), "no storage"),
    "a persistent list": (lambda: content(b"]Q"), "holds no network"),
    "the same bytes under many names": (lambda: many(2000), "more values than the file holds"),
    "a module that is none": (lambda: zipped(b"\x80\x02ctorch.nn.modules.linear\nLinear\n.", {}), "holds no network"),
    "a module without parts": (lambda: zipped(b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81.", {}), "is no module"),
    "compressed": (lambda: content(tensor(), compression=zipfile.ZIP_DEFLATED), "compressed or encrypted"),
    "a bomb": (lambda: content(tensor(), values=bytes(10**7), compression=zipfile.ZIP_DEFLATED), "compressed"),
    "TorchScript": (lambda: content(tensor(), constants_pkl=b"x"), "TorchScript program"),
    "big-endian": (lambda: content(tensor(), byteorder=b"big"), "big-endian"),
    "big-endian (legacy)": (lambda: legacy(holding(tensor()), little=False), "big-endian"),
    "another magic number": (lambda: legacy(holding(tensor()), magic=5), "not one of torch.save's"),
    "keys that are none": (lambda: legacy(holding(tensor()), [["0"]]), "what its values are"),
    "keys of nothing": (lambda: legacy(holding(tensor()), ["0", "1"]), "what its values are"),
    "no values (legacy)": (lambda: legacy(holding(tensor()), values=b""), "cut off"),
    "a zip file of something": (lambda: zipped(b"x", root="a/b/"), "not one of torch.save's"),
    "an empty zip file": (lambda: b"PK\x05\x06" + bytes(18), "is not what torch.save writes"),
    "a tar archive": (tarred, "tar archive"),
    "a page": (lambda: b"<!DOCTYPE html><html>Quota exceeded</html>", "a web page"),
    "a pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS"),
    "safetensors": (lambda: struct.pack("<Q", 2) + b"{}", "safetensors"),
    "NumPy": (lambda: b"\x93NUMPY\x01\x00", "NumPy array"),
    "nothing": (lambda: b"", "it is empty"),
    "text": (lambda: b"hello", "something else"),
    "a list": (lambda: saved([torch.ones(2)], True), "holds no network"),
    "numbers": (lambda: saved({"epoch": 3, "acc": 0.5}, False), "found 'epoch, acc'"),
    "an empty state dict": (lambda: saved({"state_dict": {}}, True), "holds no network"),
    "a list as a weight": (lambda: saved({"state_dict": {"a": torch.ones(2), "b": [1]}}, True), "b in it is no tensor"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, told = HOSTILE[name]
    file = tmp_path / "hostile.pth"
    file.write_bytes(make())
    with pytest.raises(UserError) as caught:
        checkpoint(file)
    message = str(caught.value)
    assert told in message
    assert "\n" not in message
    assert len(message) < 600
    assert [left.name for left in tmp_path.iterdir()] == ["hostile.pth"]  # nothing of it was executed


@pytest.mark.parametrize(
    "name", ["eval as a weight (zip)", "eval as a weight (legacy)", "a storage outside", "nothing"]
)
def test_the_command_line_refuses_them_and_writes_nothing(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hostile.pth").write_bytes(HOSTILE[name][0]())
    with pytest.raises(SystemExit) as end:
        cli.main(["convert", "hostile.pth", "--out", "out"])
    assert end.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert [left.name for left in tmp_path.iterdir()] == ["hostile.pth"]


def test_the_test_files_would_be_whole(tmp_path):
    """The hand-written pieces make a good file when nothing is wrong with them."""
    for data in (content(tensor()), legacy(holding(tensor()))):
        same(read(data, tmp_path).tensors, {"weight": torch.zeros(3, 4)})


@containers
def test_a_file_cut_off_anywhere_is_refused(new, tmp_path):
    data = saved(TENSORS, new)
    for length in random.Random(0).sample(range(len(data)), 60):
        with pytest.raises(UserError, match=r"refused|not what torch"):
            read(data[:length], tmp_path)


@containers
def test_random_damage_never_escapes(new, tmp_path):
    data, draw = saved({"state_dict": TENSORS, "epoch": 3}, new), random.Random(0)
    refused = whole_after_all = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(draw.choice([1, 3, 10, 100])):
            damaged[draw.randrange(len(data))] = draw.randrange(256)
        try:
            read(bytes(damaged), tmp_path)
        except UserError as error:
            refused += "\n" not in str(error)
        else:
            whole_after_all += 1  # some bytes are of no consequence
    assert refused + whole_after_all == 150
    assert refused > 50


def test_missing_and_giant_files(tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"cannot read .*No such file"):
        checkpoint(tmp_path / "none.pth")
    with pytest.raises(UserError, match=r"cannot read .*directory"):
        checkpoint(tmp_path)
    monkeypatch.setattr(torchfile, "MOST_BYTES", 100)
    with pytest.raises(UserError, match="is larger than"):
        read(saved(TENSORS, True), tmp_path)
