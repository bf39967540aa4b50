"""DP-SGD on the rendered people of defences_faces.py, after its gradients were mended.

The rows "DP-SGD" and "TL-DMI + DP-SGD" of that record were trained along wrong gradients: Opacus reads the maps of a
convolution as if they were contiguous, and they were channels-last. Everything else of the record stands. Here is the
same world again (same people, network, recipe, seeds, attack, judge), with the undefended network and both nulls
beside the two rows, so that they are compared within one run. Strength is chosen by the same rule as there, in the
same three steps:

    lightleak study studies/private_faces.py --here 1         the sweep
    python studies/private_faces.py runs/private_faces        chooses, and writes private_faces.json beside this file
    lightleak study studies/private_faces.py --here 1         everything; what is done stays done

About an hour on one core.
"""

import json
import sys
from itertools import zip_longest
from pathlib import Path

from lightleak.defences import DPSGD, TLDMI
from lightleak.study import Store
from lightleak.study.comparison import compare, compare_on_the_way
from lightleak.study.costs import Costs
from lightleak.study.pool import load_module
from lightleak.study.tasks import TrainTarget

WORLD = load_module("defences_faces_world", Path(__file__).with_name("defences_faces.py"))
SWEEP = {
    "none": ((),),
    "DP-SGD": WORLD.SWEEP["DP-SGD"],
    "TL-DMI + DP-SGD": tuple((TLDMI(share=0.85), DPSGD(epsilon=epsilon)) for epsilon in (1000.0, 50.0, 8.0)),
}
STRENGTHS = Path(__file__).with_suffix(".json")


def sweep():
    """The candidates for each row's strength, by its name, weakest first; nobody attacks these."""
    return {
        name: [TrainTarget(WORLD.POPULATION, WORLD.SETTING.architecture, WORLD.RECIPE, one, 9) for one in row]
        for name, row in SWEEP.items()
    }


def private():
    """The two rows at the strengths that were chosen; none before that."""
    if not STRENGTHS.is_file():
        return ()
    return tuple(SWEEP[name][place] for name, place in json.loads(STRENGTHS.read_text())["chosen"].items())


def tasks():
    """The sweep; once strengths are chosen both losses, the copies on the way, and what each row costs."""
    # The weakest of each row first: a sweep that is stopped early has what the rule most likely chooses.
    found = [task for place in zip_longest(*sweep().values()) for task in place if task is not None]
    rows = ((), *private()) if private() else ()
    found += [task for loss in WORLD.LOSSES for task in compare(WORLD.attacked(loss), rows)]
    found += compare_on_the_way(WORLD.SETTING, rows[:1]) + compare_on_the_way(WORLD.SETTING, rows[1:], places=(1,))
    return found + [Costs(WORLD.POPULATION, WORLD.SETTING.architecture, WORLD.RECIPE, chosen) for chosen in rows]


if __name__ == "__main__":
    STRENGTHS.write_text(json.dumps(WORLD.choose(Store(Path(sys.argv[1])), sweep()), indent=1) + "\n")
    print(STRENGTHS.read_text())
