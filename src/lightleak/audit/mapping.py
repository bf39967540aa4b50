"""What the record answers of frameworks that auditors file it under, and what it does not.

Wording is ours; sources: EDPB Opinion 28/2024, NIST AI 100-2 E2025, MITRE ATLAS, OWASP AISVS 1.0 (2026) and AI
Exchange, ISO/IEC 27090. Nothing here is legal advice.
"""

from typing import Any

ATTACKS = (
    ("model inversion", "run", "images of each class, see members"),
    ("reconstruction", "run", "at the level of a class: what a person looks like, not which pixels were trained on"),
    ("membership inference", "not run", "asks of one given picture whether it was trained on"),
    ("attribute inference", "not run", "asks for a trait of a person whose other data are given"),
    ("exfiltration", "not run", "of training data by other ways than the model's answers"),
    ("regurgitation", "not applicable", "a classifier generates nothing"),
    ("model extraction", "not run", "copies were learnt only as a means of inversion"),
)

FRAMEWORKS: tuple[dict[str, Any], ...] = (
    {
        "framework": "EDPB Opinion 28/2024",
        "part": "anonymity of AI models: structured tests against known attacks",
        "answers": "inversion and class-level reconstruction, with intervals, nulls, the worst person and spread",
        "leaves_open": "membership and attribute inference, exfiltration; means reasonably likely to be used by others",
    },
    {
        "framework": "NIST AI 100-2 (E2025)",
        "part": "privacy attacks: NISTAML.032 data reconstruction, of which model inversion is a kind",
        "answers": "the attacker's goal, knowledge and capability are stated for each member",
        "leaves_open": "NISTAML.033 membership inference, NISTAML.034 property inference, NISTAML.031 model extraction",
    },
    {
        "framework": "MITRE ATLAS",
        "part": "AML.T0024.001 Invert AI Model; access AML.T0040 (inference API) or AML.T0044 (full)",
        "answers": "how far the technique succeeds with the access tested, and after how many queries",
        "leaves_open": "AML.T0024.000 (membership), AML.T0024.002 (extraction), everything before and after",
    },
    {
        "framework": "OWASP AISVS 1.0",
        "part": "C11.2 (objective); 11.1.3 known attack techniques; 11.2.3 calibration; 11.2.4 privacy unit",
        "answers": "resistance to inversion; calibration error, overconfidence; epsilon, delta and unit if recorded",
        "leaves_open": "11.2.5 membership simulations; the monitoring of C11.4",
    },
    {
        "framework": "OWASP AI Exchange",
        "part": "model inversion and membership inference, by use of the model",
        "answers": "the inversion half, and what rounding, top-k or labels alone change where a guard was tested",
        "leaves_open": "the membership half",
    },
    {
        "framework": "ISO/IEC 27090",
        "part": "guidance on threats to AI systems: model inversion",
        "answers": "evidence for the treatment of this threat",
        "leaves_open": "the organisation's controls",
    },
)

LIMITS = (
    "An attack that fails is evidence only against that attack, with this budget, prior and access.",
    "The record speaks of the model in the file named here; quantised, pruned, fused or distilled variants that are "
    "released too are to be audited each.",
    "The record's own hash shows that it was not changed by accident; it is no signature.",
)
