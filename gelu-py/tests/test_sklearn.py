"""The classifier in scikit-learn's manner."""

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import gelu
from gelu.sklearn import GeluClassifier


@parametrize_with_checks([GeluClassifier(network="mlp:16", epochs=20)])
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


def test_a_table_in_the_clear_and_on_ciphertexts(key):
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    x, held_out, names, expected = train_test_split(x, names, random_state=0)
    estimator = GeluClassifier("mlp:12", random_state=0).fit(x, names)
    assert estimator.score(held_out, expected) > 0.9
    assert estimator.network_.classes == ["setosa", "versicolor", "virginica"]
    server = gelu.Server(estimator.network_)
    connection = gelu.Client(server.client_spec(), key).connect(server)
    probabilities = estimator.predict_proba(held_out, connection=connection)
    assert np.array_equal(probabilities, estimator.predict_proba(held_out))
    assert np.array_equal(estimator.predict(held_out, connection=connection), estimator.predict(held_out))


def test_small_images():
    digits = load_digits()
    x, y = digits.images[:, None] / 16, digits.target
    estimator = GeluClassifier("resnet8:4", epochs=3, random_state=0, standardize=False).fit(x[:800], y[:800])
    assert estimator.n_features_in_ == 1
    assert estimator.network_.input_shape == [1, 8, 8]
    assert estimator.score(x[800:1000], y[800:1000]) > 0.6
    with pytest.raises(ValueError, match=r"\[N, 1, 8, 8\]"):
        estimator.predict(x[:, :, :7])


def test_it_is_part_of_pipelines_and_searches():
    x, y = load_iris(return_X_y=True)
    pipeline = make_pipeline(MinMaxScaler(), GeluClassifier(epochs=5, random_state=0))
    assert cross_val_score(pipeline, x, y, cv=3).mean() > 0.7
    search = GridSearchCV(GeluClassifier(epochs=5, random_state=0), {"network": ["mlp:4", "mlp:16"]}, cv=3)
    assert search.fit(x, y).best_params_["network"] in {"mlp:4", "mlp:16"}
