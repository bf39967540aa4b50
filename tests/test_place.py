"""One place for device and precision: names, what a card cannot do in one line, batches that fit, and a way back."""

import pytest
import torch

from lightleak import place
from lightleak.errors import UserError
from lightleak.place import (
    PROCESSOR,
    Memory,
    Place,
    batch_of,
    cards,
    choose,
    explained,
    fitting,
    here,
    in_pieces,
    supported,
)
from second_device import card

FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.18 GiB"


def test_the_processor_is_always_there():
    assert choose("cpu").device == torch.device("cpu")
    assert not choose("cpu").is_card
    assert choose("cpu").name
    memory = choose("cpu").memory()
    assert memory is None or 0 < memory.free <= memory.total


@pytest.mark.parametrize(
    "name", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:1", "mps:0", "", "CUDA", "meta", "cuda:0:1"]
)
def test_a_name_that_is_none(name):
    with pytest.raises(UserError, match="auto, cpu, cuda"):
        choose(name)


def forget():
    for asked in (place._unfit, place._unusable):
        asked.cache_clear()


@pytest.fixture
def two_cards(monkeypatch):
    """Two cards, as far as torch tells; what is asked of them is not computed."""
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda card: f"Card {torch.device('cuda', card).index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda card: (9, 0) if card else (3, 7))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90", "compute_90"])
    monkeypatch.setattr(torch.version, "hip", None)
    real = torch.ones
    monkeypatch.setattr(torch, "ones", lambda *size, **_: real(*size))
    forget()
    yield
    forget()


@pytest.mark.usefixtures("two_cards")
def test_auto_takes_a_card_that_is_fit():
    assert str(choose("auto").device) == "cuda:1"
    assert cards("auto") == ["cuda:1"]
    with pytest.raises(UserError, match=r"cuda:0 cannot be used: Card 0 \(capability 3.7\) is too old for this torch"):
        choose("cuda:0")
    with pytest.raises(UserError, match="cuda:7 cannot be used: there are cuda:0 Card 0, cuda:1 Card 1; --device cpu"):
        choose("cuda:7")


@pytest.mark.usefixtures("two_cards")
def test_auto_says_which_card_it_passes_over(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    found = choose("auto")
    assert found.device.type in ("cpu", "mps")
    if found.device.type == "cpu":
        assert "too old" in (place.first_line(found, "auto") or "")
        assert place.first_line(found, "cpu") is None


@pytest.mark.usefixtures("two_cards")
def test_a_driver_that_fails_is_one_line(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("CUDA driver initialization failed\nmore\nand more")

    monkeypatch.setattr(torch, "ones", broken)
    with pytest.raises(UserError, match=r"^cuda:1 cannot be used: CUDA driver initialization failed; --device cpu"):
        choose("cuda:1")


def test_no_cuda_in_this_torch(monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    forget()
    with pytest.raises(UserError, match="built without CUDA"):
        choose("cuda")
    forget()
    assert cards("cpu") == []


@pytest.mark.parametrize(
    ("capability", "compiled", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 6), ["sm_80"], True),  # a later step of the same generation
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80", "sm_86"], False),  # machine code of another generation
        ((12, 0), ["sm_90", "compute_90"], True),  # intermediate code
        ((6, 1), ["sm_75", "compute_75"], False),
        ((9, 0), ["sm_90a"], True),
        ((10, 0), ["sm_100", "sm_120"], True),
        ((9, 0), [], False),
    ],
)
def test_who_runs_what(capability, compiled, runs):
    assert supported(capability, compiled) is runs


def test_here_is_where_one_entered_and_one_gets_out_again():
    inner = Place(torch.device("meta"))
    assert here().device.type == "cpu"
    with inner.entered() as entered:
        assert entered is inner
        assert here() is inner
        with Place().entered():
            assert here().device.type == "cpu"
        assert here() is inner
    with pytest.raises(ZeroDivisionError), inner.entered():
        raise ZeroDivisionError
    assert here().device.type == "cpu"


def test_a_full_card_says_which_batch_fits():
    said = r"a batch of 16 does not fit .* --attack.batch \d+; what is done stays done"
    with pytest.raises(UserError, match=said), Place().entered(), batch_of(16, "--attack.batch", PROCESSOR):
        raise torch.OutOfMemoryError(FULL)
    said = r"a batch of 1 does not fit .*not even one fits"
    with pytest.raises(UserError, match=said), batch_of(1, "--attack.batch", PROCESSOR):
        raise RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)")
    with pytest.raises(RuntimeError, match="shapes"), batch_of(1, "--attack.batch", PROCESSOR):
        raise RuntimeError("shapes differ")


def test_other_trouble_of_cards_is_one_line_too():
    with pytest.raises(UserError, match=r"memory of this machine is full .*smaller batch"), explained(Place()):
        raise torch.OutOfMemoryError(FULL)
    with pytest.raises(UserError, match="too old for this torch"), explained(Place()):
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")


@pytest.mark.parametrize(
    ("size", "before", "peak", "room", "fits"),
    [
        (16, 0, 16, 20, 8),  # never more than half of what failed
        (16, 10, 90, 90, 8),
        (100, 0, 100, 30, 24),  # four fifths of what the room has
        (16, 10, 90, 10, 0),
        (1, 0, 10, 10, 0),
        (8, 50, 50, 80, 4),  # nothing is known of its size
        (16, 90, 95, 50, 0),
    ],
)
def test_which_batch_fits(size, before, peak, room, fits):
    assert fitting(size, before, peak, room) == fits


@pytest.mark.parametrize(("size", "fits"), [(100, 50), (128, 64), (160, 80)])
def test_what_failed_still_holds_its_memory_when_the_advice_is_worked_out(monkeypatch, size, fits):
    """A card of 139 GiB, 1.41 an image: while the error is handled hardly anything is free, and all of it is ours."""
    gib, total, weights, each = 2**30, 139, 1, 1.41
    held = [weights]
    told = {
        "memory_allocated": lambda _: int(held[0] * gib),
        "max_memory_allocated": lambda _: int(held[0] * gib),
        "memory_reserved": lambda _: int(held[0] * gib),
        "reset_peak_memory_stats": lambda _: None,
        "mem_get_info": lambda _: (int((total - held[0]) * gib), total * gib),
        "get_device_name": lambda _: "a card",
    }
    for name, said in told.items():
        monkeypatch.setattr(torch.cuda, name, said)

    def fills_up():
        with batch_of(size, "--attack.batch", torch.device("cuda:0")):
            held[0] = min(total, weights + size * each)
            raise torch.OutOfMemoryError(FULL)

    with pytest.raises(UserError, match=rf"about {fits} should fit: --attack.batch {fits};"):
        fills_up()


def test_pieces_shrink_until_they_fit():
    rows, asked = torch.arange(20.0), []

    def double(piece):
        asked.append(piece.stop - piece.start)
        if asked[-1] > 3:
            raise torch.OutOfMemoryError(FULL)
        return 2 * rows[piece]

    assert torch.equal(in_pieces(double, 20, 16), 2 * rows)
    assert asked == [16, 8, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]

    def never(_):
        raise torch.OutOfMemoryError(FULL)

    with pytest.raises(torch.OutOfMemoryError):
        in_pieces(never, 2, 2)


def test_what_fits_beside_what_is_free(monkeypatch):
    monkeypatch.setattr(place, "_machine_memory", lambda: Memory(100, 1000))
    assert Place().holds(50)
    assert not Place().holds(51)
    assert Place(torch.device("meta")).holds(10**18)  # where nobody says what is free, it is tried


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_precision_is_the_places_own(precision):
    with Place(precision=precision).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == getattr(torch, precision)


def test_the_second_device_refuses_to_mix():
    """The tests of all public paths lean on this."""
    with card() as device:
        there, back = torch.ones(3, device=device), torch.ones(3)
        with pytest.raises(RuntimeError, match="same device"):
            there + back
        with pytest.raises(RuntimeError, match="same device"):
            back[torch.tensor([1], device=device)]
        with pytest.raises(TypeError):
            there.numpy()
        assert there[torch.tensor([0])].device == device
        assert torch.equal((there + 1 + there.sum()).cpu(), back + 4)
        assert there.tolist() == [1, 1, 1]


def test_float32_is_float32_there_and_everything_is_put_back(monkeypatch):
    """Also while it lasts, others may read torch's switches: torch.compile and cudnn.flags do."""
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    switches = (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
    with place._exact(torch.device("cuda:0")):
        with torch.backends.cudnn.flags(benchmark=True):
            pass
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert torch.are_deterministic_algorithms_enabled()
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32) == switches
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.gpu
def test_a_card_computes_the_same_bytes_twice():
    with choose("cuda").entered() as there:
        assert not torch.backends.cudnn.allow_tf32
        net = there.put(torch.nn.Conv2d(3, 8, 3))
        images = there.put(torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
        first, second = (torch.autograd.grad(net(images).square().sum(), net.weight)[0] for _ in range(2))
        assert torch.equal(first, second)
        memory = there.memory()
        assert memory
        assert memory.free > 0
        with (
            pytest.raises(UserError, match="does not fit into the memory of cuda"),
            batch_of(4, "--batch", there.device),
        ):
            torch.empty(memory.total * 2, dtype=torch.uint8, device=there.device)
