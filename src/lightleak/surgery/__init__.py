"""Skip surgery on any model: find the signals that go around layers, remove or scale them, and keep a record of it."""

from lightleak.surgery.edit import chosen_skips, remove_skips, replay, scale_skips, without_inplace
from lightleak.surgery.fuse import fuse
from lightleak.surgery.recipe import recipe
from lightleak.surgery.skips import find_joins, find_skips
from lightleak.surgery.stages import Join, Skip
from lightleak.surgery.through import SurgeryError

__all__ = [
    "Join",
    "Skip",
    "SurgeryError",
    "chosen_skips",
    "find_joins",
    "find_skips",
    "fuse",
    "recipe",
    "remove_skips",
    "replay",
    "scale_skips",
    "without_inplace",
]
