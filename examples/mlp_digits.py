"""A multilayer perceptron: layers of neurons that feed layers, and softmax at the end.

Handwritten digits of 8 x 8 pixels; trained by scikit-learn, predicted here, one image at a time.
"""

import timeit
import warnings

import numpy as np
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

import fastact as fa

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = train_test_split(X / 16, y, random_state=0)
mlp = MLPClassifier((128, 64), max_iter=20, random_state=0)
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ConvergenceWarning)  # 20 rounds are enough for here
    mlp.fit(X, y)

model = fa.Sequential.from_sklearn(mlp)
probabilities = model(X_new)
predicted = model.classes_[probabilities.argmax(axis=1)]

wrong = np.count_nonzero(predicted != y_new)
agree = np.count_nonzero(predicted == mlp.predict(X_new))
difference = np.abs(probabilities - mlp.predict_proba(X_new)).max()
print(model)
print(f"{wrong} of {len(y_new)} new digits are taken for others")
print(f"labels equal to scikit-learn's: {agree} of {len(y_new)}")
print(f"largest difference of a probability: {difference:.0e}")

one = X_new[:1]
ours = min(timeit.repeat(lambda: model(one), number=1000, repeat=5)) / 1000
theirs = min(timeit.repeat(lambda: mlp.predict_proba(one), number=100, repeat=5)) / 100
print(f"one image: {ours * 1e6:.1f} us, by scikit-learn {theirs * 1e6:.0f} us")
