"""A classifier in scikit-learn's manner: `pip install gelu-net[sklearn]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ._native import Network

if TYPE_CHECKING:
    from ._native import Connection

__all__ = ["GeluClassifier"]


class GeluClassifier(ClassifierMixin, BaseEstimator):
    """A network for rows of a table or small images, trained in the clear, that predicts on ciphertexts.

    `fit` is the model owner's, who has the data that the network learns from. Predictions are those of the
    network in fixed point: computed in the clear, or, over a `connection`, on ciphertexts by a server that
    sees none of the inputs. Both give the same numbers, bit for bit, for networks without shortcuts or means
    behind activations, and for all where the server's mode is "revealed".

    Parameters
    ----------
    network : str, default="mlp:32"
        "mlp:300,100" (hidden widths) for tables and images; "conv1", "lenet5" or "resnet8:4" for images.
    epochs : int, default=30
        Passes over the data.
    batch_size : int, default=32
        Inputs to one update.
    learning_rate : float, default=0.05
        The descent's rate at first, which falls to zero along a cosine.
    momentum : float, default=0.9
        From 0 up to, but not including, 1.
    weight_decay : float, default=1e-4
        Factor of the weights' L2 penalty.
    weight_bits : int, optional
        Trains weights of so few bits, 2 to 24, in the second half: they cost the server less.
    standardize : bool, default=True
        Whether each column, or each channel of images, is brought to mean 0 and deviation 1. The client does
        that before it encrypts.
    random_state : int, RandomState instance or None, default=None
        Determines first weights and the order of inputs.

    Attributes
    ----------
    classes_ : ndarray of shape [classes]
        The labels.
    network_ : gelu.Network
        The trained network: `gelu.Server(estimator.network_)` serves it.
    mean_, scale_ : ndarray
        What `prepare` subtracts and divides by.
    n_features_in_ : int
        Columns of the table, or channels of the images.

    """

    def __init__(
        self,
        network: str = "mlp:32",
        *,
        epochs: int = 30,
        batch_size: int = 32,
        learning_rate: float = 0.05,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        weight_bits: int | None = None,
        standardize: bool = True,
        random_state: Any = None,
    ) -> None:
        self.network = network
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.weight_bits = weight_bits
        self.standardize = standardize
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> GeluClassifier:
        """Train on X, of shape [N, F] or [N, C, H, W], with labels y of shape [N]."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32), allow_nd=True)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("expected at least two classes, found 1 class")
        axes = (0, *range(2, X.ndim))
        shape = (1, X.shape[1], *([1] * (X.ndim - 2)))
        self.mean_ = np.zeros(shape)
        self.scale_ = np.ones(shape)
        if self.standardize:
            self.mean_ = X.mean(axis=axes, keepdims=True, dtype=np.float64)
            deviation = X.std(axis=axes, keepdims=True, dtype=np.float64)
            self.scale_ = np.where(deviation > 0, deviation, 1.0)
        self.input_shape_ = X.shape[1:]
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        untrained = Network.named(
            self.network, input_shape=self.input_shape_, classes=len(self.classes_), seed=seed
        )
        self.network_ = untrained.fit(
            self._scaled(X),
            labels.astype(np.int64),
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            weight_bits=self.weight_bits,
            seed=seed,
        ).with_classes([str(label) for label in self.classes_])
        return self

    def _scaled(self, X: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        return ((X - self.mean_) / self.scale_).astype(np.float32)

    def prepare(self, X: Any) -> NDArray[np.float32]:
        """Return X as the network takes it: standardized, float32."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=(np.float64, np.float32), allow_nd=True, reset=False)
        if X.shape[1:] != self.input_shape_:
            expected = ", ".join(str(extent) for extent in self.input_shape_)
            raise ValueError(f"expected an array of shape [N, {expected}], found {list(X.shape)}")
        return self._scaled(X)

    def predict_proba(self, X: Any, *, connection: Connection | None = None) -> NDArray[np.float64]:
        """Return the probabilities of the classes, of shape [N, classes].

        With a `connection` (`gelu.Client.connect`) they are computed on ciphertexts by its server.
        """
        prepared = self.prepare(X)
        return self.network_.simulate(prepared) if connection is None else connection.predict(prepared)

    def predict(self, X: Any, *, connection: Connection | None = None) -> NDArray[Any]:
        """Return the most probable label of each input, of shape [N]; `connection` as in `predict_proba`."""
        probabilities = self.predict_proba(X, connection=connection)
        labels: NDArray[Any] = self.classes_[probabilities.argmax(axis=1)]
        return labels
