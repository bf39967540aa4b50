"""Where and in which precision numbers are computed: one place a process, chosen once, which everything asks.

A verb or a worker chooses its place (`choose("auto")`) and enters it; whoever builds a network or paints a population
asks `here()` where it belongs. Functions of the library follow the networks that they are given. The device is part
of no task's key: it decides how long a result takes and its last digits, never what it means.
"""

import os
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from lightleak.errors import UserError

Precision = Literal["float32", "bfloat16"]
Thing = TypeVar("Thing", bound=Tensor | nn.Module)
SHARE = 0.5  # of the free memory of a card that images may fill; the rest is for networks and what they compute
NAMES = "auto, cpu, cuda, cuda:N or mps"


PROCESSOR = torch.device("cpu")
WITHOUT_FLOAT64 = ("mps",)  # kinds of devices


@dataclass(frozen=True)
class Memory:
    """Bytes of a device: what is free now, and all."""

    free: int
    total: int

    def __str__(self) -> str:
        return f"{self.free / 2**30:,.1f} of {self.total / 2**30:,.1f} GiB free"


@dataclass(frozen=True)
class Place:
    """One device, and the precision that its convolutions and products run in where a result may bear it."""

    device: torch.device = PROCESSOR
    precision: Precision = "float32"

    @property
    def name(self) -> str:
        """What the hardware calls itself, as a record names it."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "mps":
            return f"{platform.processor() or 'Apple'} GPU"
        return processor()

    @property
    def is_card(self) -> bool:
        """Whether it is anything but the processor itself, with a memory of its own."""
        return self.device.type != "cpu"

    @property
    def exact(self) -> "Place":
        """Where float64 is computed: here, but for Apple's GPUs, which have none."""
        return self if self.finest == torch.float64 else Place(precision=self.precision)

    @property
    def finest(self) -> torch.dtype:
        """The most exact numbers that the device computes with."""
        return torch.float32 if self.device.type in WITHOUT_FLOAT64 else torch.float64

    def memory(self) -> Memory | None:
        """What is free and what there is; None where the system does not say."""
        if self.device.type == "cuda":
            return Memory(*torch.cuda.mem_get_info(self.device))
        if self.device.type == "mps":
            total = torch.mps.recommended_max_memory()
            return Memory(max(0, total - torch.mps.driver_allocated_memory()), total)
        return _machine_memory() if self.device.type == "cpu" else None

    def holds(self, size: int, share: float = SHARE) -> bool:
        """Whether `size` more bytes fit into a share of what is free."""
        memory = self.memory()
        return memory is None or size <= share * memory.free

    def put(self, thing: Thing) -> Thing:
        """A tensor or a network there; the same object if it is there already, or has shapes but no numbers yet."""
        parts = [thing] if isinstance(thing, Tensor) else [*thing.parameters(), *thing.buffers()]
        if any(part.is_meta for part in parts):
            return thing
        return thing.to(self.device)  # pyright: ignore[reportReturnType]

    def autocast(self) -> AbstractContextManager:
        """A context in which convolutions and products run in the place's precision."""
        return lowered(self.precision, self.device)

    def computes_bfloat16(self) -> bool:
        """Whether the device has instructions for it; elsewhere it is emulated and slow."""
        if self.device.type == "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        return self.device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()

    def wait(self) -> None:
        """Until everything asked of the device is done: before a clock is read."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def tidy(self) -> None:
        """Give memory that nothing uses any more back to the card, for other processes."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    @contextmanager
    def entered(self) -> Iterator["Place"]:
        """Make this the place of everything that is done in the context, with the same bytes on every run.

        On CUDA, float32 is float32 (no TF32) and algorithms are deterministic where there are such. What the card
        cannot do (memory that is full, kernels that it is too old for) becomes UserError.
        """
        token = _HERE.set(self)
        try:
            with _exact(self.device), explained(self):
                yield self
        finally:
            _HERE.reset(token)


_HERE: ContextVar[Place | None] = ContextVar("here", default=None)


def here() -> Place:
    """The place that this process was told to compute at; the processor, if it was told none."""
    return _HERE.get() or Place()


def precise(tensor: Tensor) -> Tensor:
    """The tensor in float64, on the processor where its device has none; gradients find their way back."""
    return Place(tensor.device).exact.put(tensor).double()


def lowered(precision: Precision, device: torch.device) -> AbstractContextManager:
    """A context in which convolutions and products run in the given precision on a device."""
    if precision == "float32" and not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


# --- choosing


def choose(name: str = "auto", precision: Precision = "float32") -> Place:
    """The place of a name: "auto", "cpu", "cuda", "cuda:N" or "mps"; "auto" is a GPU where there is a fit one.

    UserError in one line if it does not exist or cannot be used, with what there is.
    """
    kind, colon, index = name.partition(":")
    if name == "auto":
        return Place(torch.device(_best()), precision)
    if kind not in ("cpu", "cuda", "mps") or (colon and (kind != "cuda" or not index.isdecimal())):
        raise UserError(f"there is no device {name!r}; write {NAMES}")
    if kind == "cuda" and (why := _unusable(int(index or 0))):
        raise UserError(f"{name} cannot be used: {why}; --device cpu computes the same, slowly")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UserError("there is no Apple GPU that torch can use here; write --device auto or cpu")
    return Place(torch.device("cuda", int(index or 0)) if kind == "cuda" else torch.device(kind), precision)


def cards(name: str = "auto") -> list[str]:
    """The names of the cards that a local study of this device shares out: one worker each; [] where there is none."""
    if name in ("auto", "cuda"):
        fit = [f"cuda:{index}" for index in range(_count()) if not _unfit(index)]
        if fit or name == "cuda":
            return fit
    place = choose(name)
    return [str(place.device)] if place.is_card else []


def found_cards() -> list[tuple[str, str, bool]]:
    """Every CUDA card that torch sees: its name, what it is, and whether it can be computed on."""
    found = []
    for index in range(_count()):
        name, why = f"cuda:{index}", _unusable(index)
        place = Place(torch.device(name))
        found.append((name, why or f"{place.name}, {place.memory()}", why is None))
    return found


def first_line(place: Place, name: str) -> str | None:
    """What a verb says of where it computes, if there is anything to say: a card, or one that "auto" passed over."""
    if place.is_card:
        memory = place.memory()
        return f"computing on {place.device}: {place.name}" + (f", {memory}" if memory else "")
    passed = _unusable(0) if name == "auto" and _count() else None
    return f"computing on the CPU: cuda:0 cannot be used: {passed}" if passed else None


def _best() -> str:
    usable = next((index for index in range(_count()) if not _unusable(index)), None)
    if usable is not None:
        return f"cuda:{usable}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _count() -> int:
    return torch.cuda.device_count() if torch.backends.cuda.is_built() else 0


@cache
def _unfit(index: int) -> str | None:
    """Why a CUDA device cannot be computed on, as far as can be told without using its memory; None if it can."""
    if not torch.backends.cuda.is_built():
        return "this torch was built without CUDA (pip install torch from pytorch.org's index for CUDA)"
    count = _count()
    if index >= count:
        found = ", ".join(f"cuda:{card} {torch.cuda.get_device_name(card)}" for card in range(count))
        return f"there {'is' if count == 1 else 'are'} {found}" if count else "torch sees no GPU (does nvidia-smi?)"
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # must stand before cuBLAS starts: the same bytes twice
    capability, compiled = torch.cuda.get_device_capability(index), torch.cuda.get_arch_list()
    if not torch.version.hip and not supported(capability, compiled):
        name, (major, minor) = torch.cuda.get_device_name(index), capability
        return f"{name} (capability {major}.{minor}) is too old for this torch, built for {', '.join(compiled)}"
    return None


@cache
def _unusable(index: int) -> str | None:
    """Why a CUDA device cannot be computed on; None if it can: it was tried."""
    if why := _unfit(index):
        return why
    try:
        torch.ones(2, device=f"cuda:{index}").sum().item()
    except RuntimeError as error:
        return _line(error)
    return None


def supported(capability: tuple[int, int], compiled: list[str]) -> bool:
    """Whether a card of this compute capability runs code compiled for these architectures.

    Machine code (sm_86) runs on cards of the same generation and a later step; intermediate code (compute_80) on all
    later cards.
    """
    for architecture in compiled:
        kind, _, number = architecture.partition("_")
        digits = "".join(letter for letter in number if letter.isdigit())
        if not digits:
            continue
        major, minor = int(digits[:-1]), int(digits[-1])
        same_generation = kind == "sm" and major == capability[0] and minor <= capability[1]
        if same_generation or (kind == "compute" and (major, minor) <= capability):
            return True
    return False


# --- what a device cannot do


def is_full(error: BaseException) -> bool:
    """Whether an error says that a device's memory is used up."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """What a card cannot do as UserError in one line; other errors pass."""
    try:
        yield
    except RuntimeError as error:
        if is_full(error):
            raise UserError(
                f"the memory of {_called(place)} is full ({_state(place)}): a smaller batch needs less "
                f"({_line(error)[:120]})"
            ) from None
        if "no kernel image" in str(error):
            raise UserError(f"{_called(place)} is too old for this torch; --device cpu computes the same") from None
        raise


@contextmanager
def batch_of(size: int, setting: str, device: torch.device) -> Iterator[None]:
    """If what is done with batches of `size` fills the memory of the device, UserError that says which batch fits.

    `setting`: how the user says the batch, such as "--recipe.batch".
    """
    place = Place(device)
    before = _allocated(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    try:
        yield
    except RuntimeError as error:
        if not is_full(error):
            raise
        memory = place.memory()
        # What failed still holds its memory here: whatever this process has reserved will be free for the next try.
        on_cuda = device.type == "cuda"
        peak = torch.cuda.max_memory_allocated(device) if on_cuda else before
        own = torch.cuda.memory_reserved(device) if on_cuda else before
        fits = fitting(size, before, peak, own + memory.free if memory else peak)
        advice = f"about {fits} should fit: {setting} {fits}" if fits else "not even one fits: take a larger card"
        raise UserError(
            f"a batch of {size} does not fit into the memory of {_called(place)} ({_state(place)}); {advice}; what "
            "is done stays done"
        ) from None


def fitting(size: int, before: int, peak: int, room: int) -> int:
    """The batch that should fit, after one of `size` did not: memory grows linearly with the batch.

    before: bytes that were held without a batch; peak: bytes that were held when there was no more; room: bytes that
    may be held in all. The batch that failed needed more than the peak, nobody knows how much: at most half of it is
    proposed. 0: none.
    """
    each = max(1.0, (peak - before) / size)  # a lower bound
    return max(0, min(size // 2, int(0.8 * max(0, room - before) / each)))


def in_pieces(function: Callable[[slice], Tensor], count: int, batch: int) -> Tensor:
    """`function` of slices of at most `batch` rows, joined; where a card's memory is full, by ever smaller slices.

    For functions that treat each row alone: their result does not depend on the slices (but for the last digits).
    """
    found, first = [], 0
    while first < count:
        full = False
        try:
            found.append(function(slice(first, min(first + batch, count))))
        except RuntimeError as error:
            if not is_full(error) or batch == 1:
                raise
            full = True  # memory is given back only when the error is gone
        if full:
            batch = -(-batch // 2)
            here().tidy()
        else:
            first += batch
    return torch.cat(found)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _called(place: Place) -> str:
    return f"{place.device} ({place.name})" if place.is_card else "this machine"


def _state(place: Place) -> str:
    memory = place.memory()
    return str(memory) if memory else "size unknown"


def _line(error: BaseException) -> str:
    """The first sentence of an error of torch."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


@contextmanager
def _exact(device: torch.device) -> Iterator[None]:
    """float32 as it is meant, and deterministic algorithms where there are such, on CUDA."""
    if device.type != "cuda":
        yield
        return
    # By the older switches: once fp32_precision of convolutions is set, whatever reads the older ones (among them
    # torch.backends.cudnn.flags and torch.compile) raises, as of torch 2.13.
    products: Any = torch.backends.cuda.matmul
    convolutions: Any = torch.backends.cudnn
    before = (products.allow_tf32, convolutions.allow_tf32)
    filling: Any = torch.utils.deterministic
    strict, warn = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = filling.fill_uninitialized_memory
    products.allow_tf32 = convolutions.allow_tf32 = False
    torch.use_deterministic_algorithms(True, warn_only=True)  # a user's network may need what has no such algorithm
    filling.fill_uninitialized_memory = False
    torch.cuda.set_device(device)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*does not have a deterministic implementation")
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before
        torch.use_deterministic_algorithms(strict, warn_only=warn)
        filling.fill_uninitialized_memory = filled


# --- the machine


@cache
def processor() -> str:
    """What the processor calls itself, and its cores."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def _machine_memory() -> Memory | None:
    with suppress(OSError, ValueError, KeyError):
        lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines() if ":" in line)
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        return Memory(free, total)
    with suppress(AttributeError, ValueError, OSError):
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Memory(total, total)
    return None
