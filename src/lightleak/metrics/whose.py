"""Whether a reconstruction, a judge and a population mean the same people, and whether the judge is the target."""

from lightleak.attacks.reconstruction import Reconstruction
from lightleak.data.people import differ, remarks
from lightleak.data.population import Population
from lightleak.errors import UserError
from lightleak.fingerprint import weights_of
from lightleak.models.classifier import Classifier
from lightleak.models.whose import people_of


def same_people(reconstruction: Reconstruction, judge: Classifier, population: Population) -> tuple[str, ...]:
    """Remarks for the reader where something is unknown or has changed; UserError where people differ."""
    found: list[str] = []
    for people, here in ((people_of(judge), "the judge"), (reconstruction.people, "the reconstruction")):
        different = differ(people, population.people, here, "the data")
        if different:
            raise UserError(f"labels do not mean the same people: {different}; give the data as they were then")
        found += remarks(people, population.people, here, "the data")
    return tuple(found)


def own_judge(reconstruction: Reconstruction, judge: Classifier) -> tuple[str, ...]:
    """A remark if the judge has the weights of the network that was attacked, as far as the reconstruction knows."""
    if not reconstruction.target or reconstruction.target != weights_of(judge.net):
        return ()
    return (
        "the judge is the attacked model itself (the same weights): an attack raises that model's own confidence, so "
        "what is measured by this judge flatters it; take a classifier that no attack has met",
    )
