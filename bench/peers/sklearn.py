"""scikit-learn: a classifier without hidden layers is a dense layer with sigmoid."""

import functools

from .base import Library, Unsupported


def load(threads: int) -> Library:
    """`threads` is unused: BLAS read their number from the environment when NumPy was imported."""
    import sklearn
    from sklearn.neural_network import MLPClassifier

    def dense(inputs, out):
        x, weights, bias = inputs
        if weights.shape[1] < 2:
            raise Unsupported("returns two probabilities for one output")
        layer = MLPClassifier(hidden_layer_sizes=())
        # The attributes that fitting to data with several labels per row would set.
        layer.coefs_, layer.intercepts_ = [weights], [bias]
        layer.n_layers_, layer.n_outputs_ = 2, weights.shape[1]
        layer.n_features_in_ = weights.shape[0]
        layer.out_activation_ = "logistic"
        return functools.partial(layer.predict_proba, x)

    return Library(sklearn.__version__, dense={"sigmoid": dense})
