"""Bytes between peers who know each other."""
