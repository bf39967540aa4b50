"""GMI, KED-MI, LOMMA and PLG-MI on three small targets that know 24 rendered people, at 32 x 32.

What is compared: a narrow IR network with and without the skips of its last stage (RoLSS), and a narrow VGG-16, which
has none. Each attack has its own kind of prior, learnt from 1,200 images of 240 other people. Judged by another
architecture trained on other images, and by the truth through an appraiser of images. `lightleak.study.lowres` says
the rest; `studies/lowres_digits.py` does the same for digits.

The paper (Koh et al., ECCV 2024, Fig. 4; CelebA, IR-152): without the last stage's skips KED-MI, PLG-MI and LOMMA find
less.

About 20 minutes of one core: lightleak study studies/lowres_faces.py --here 2
At the papers' 64 pixels, with three trainings of the IR network whole and cut:

    lightleak study studies/lowres_faces.py --here 2 --settings size 64 trainings 3 networks face:ir18-narrow
"""

from lightleak.study.lowres import LowRes


def tasks(size=32, trainings=1, networks="", attacks=""):
    """Target by target; of some networks or attacks alone: their names, separated by commas."""
    chosen = [[name.strip() for name in text.split(",")] if text else [] for text in (networks, attacks)]
    return LowRes(size=int(size), trainings=int(trainings)).tasks(*chosen)
