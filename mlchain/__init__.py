"""mlchain: a permissioned ledger whose validators check machine learning."""

__version__ = "0.1.0"
