"""Verbs: how transactions, votes and blocks change the state."""
