"""Estimators in the habit of scikit-learn whose fitting is exact: here, or checked by a chain."""
