"""Which rows of a catalogue are wrong, how probable that is, and why, in words."""

from dalr.catalogue.audit.config import AuditConfig
from dalr.catalogue.audit.judging import AuditedRow, AuditResult, audit_catalogue
from dalr.catalogue.audit.memory import Decision, Memory, read_decisions, record_decision
from dalr.catalogue.audit.output import write_audit
from dalr.catalogue.audit.reading import Audited, read_audit
from dalr.catalogue.audit.truth import read_truth

__all__ = [
    "AuditConfig",
    "AuditResult",
    "Audited",
    "AuditedRow",
    "Decision",
    "Memory",
    "audit_catalogue",
    "read_audit",
    "read_decisions",
    "read_truth",
    "record_decision",
    "write_audit",
]
