"""Whom a classifier's labels mean: written into its record when it is named, read from there."""

from lightleak.data.people import People
from lightleak.data.population import Population
from lightleak.models.classifier import Classifier

RECORDED = "people"  # in a classifier's record


def name(classifier: Classifier, population: Population) -> Classifier:
    """The classifier with a record of whom its labels mean, which is saved in its checkpoint."""
    classifier.class_names = population.class_names
    classifier.record[RECORDED] = population.people.to_json()
    return classifier


def people_of(classifier: Classifier) -> People:
    """Whom its labels mean, as far as it says: older checkpoints hold only names, foreign ones nothing."""
    return People.from_json(classifier.record.get(RECORDED), classifier.class_names)
