"""Whole nodes in invented time: agreement, ledger, training, audits, disputes, from one seed."""
