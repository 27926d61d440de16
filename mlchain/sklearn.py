"""`from mlchain.sklearn import ChainClassifier`: exact, checkable estimators for scikit-learn."""

from mlchain.client.estimators.classifier import ChainClassifier
from mlchain.client.estimators.kmeans import ChainKMeans
from mlchain.client.estimators.regressor import ChainRegressor

__all__ = ["ChainClassifier", "ChainKMeans", "ChainRegressor"]
