"""The exact runtime: machine learning whose every bit is the same on every machine."""
