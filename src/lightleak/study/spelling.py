"""One spelling for each cut network: settings that mean the same network are trained, attacked and kept once.

`RoLSS()` names the last stage that has skips, whichever that is; `RoLSS(where=4)` is the same network where that is
stage 4, and so is `SSF(factor=0)`. Which settings are alike a defence says itself (`Respelled`); the shortest spelling
counts, so that tasks which were spelled so before keep their keys.
"""

from functools import cache

from lightleak import randomness
from lightleak.defences import Defence, Respelled
from lightleak.errors import UserError
from lightleak.models import zoo
from lightleak.models.wrap import Classifier

SIDE = 64  # pixels at which a network is looked at, if it takes them; from here on its stages are always the same


def canonical(architecture: str, defences: tuple[Defence, ...], size: int | None = None) -> tuple[Defence, ...]:
    """The defences in the shortest spelling that makes the same network of this architecture at this size of images.

    Of small images the last stages share a resolution, and so are one.
    """
    return tuple(_shortest(architecture, one, size) if isinstance(one, Respelled) else one for one in defences)


@cache
def _shortest(architecture: str, defence: Respelled, size: int | None) -> Defence:
    return defence.respelled(_looked_at(architecture, size)) if defence.ambiguous else defence


@cache
def _looked_at(architecture: str, size: int | None) -> Classifier:
    """The network, to be looked at alone."""
    with randomness.own(0):
        try:
            return zoo.build(architecture, 2, zoo.only_size(architecture) or min(size or SIDE, SIDE))
        except UserError:
            return zoo.build(architecture, 2)
