"""Useful work as pure rules: what is committed, who samples what, how disputes and pay come out."""
