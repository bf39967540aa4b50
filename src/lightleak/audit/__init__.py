"""The audit of somebody's own model: attacks by an ensemble, verified by a recogniser and judges, kept as a record."""

from lightleak.audit.answer import Answer
from lightleak.audit.brought import Brought, Examined
from lightleak.audit.ensemble import BUDGETS, Ensemble, Member, ensemble
from lightleak.audit.finish import finish
from lightleak.audit.plan import Cost, Order, Prepared, cost, prepare
from lightleak.audit.record import Check, load, verify

__all__ = [
    "BUDGETS",
    "Answer",
    "Brought",
    "Check",
    "Cost",
    "Ensemble",
    "Examined",
    "Member",
    "Order",
    "Prepared",
    "cost",
    "ensemble",
    "finish",
    "load",
    "prepare",
    "verify",
]
