"""The perceptron: one neuron with a step, and its learning rule.

Rosenblatt's rule on the breast cancer data, and scikit-learn's perceptron on all ten digits.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import Perceptron
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import fastact as fa

X, y = load_breast_cancer(return_X_y=True)
X, X_new, y, y_new = train_test_split(X, y, random_state=0)
scaler = StandardScaler().fit(X)
X, X_new = scaler.transform(X), scaler.transform(X_new)

# Whenever the neuron is wrong, its weights move by the input.
w, b = np.zeros((X.shape[1], 1)), np.zeros(1)
for _ in range(10):
    for row, target in zip(X, y, strict=True):
        error = target - fa.dense(row, w, b, fa.step)
        w += error * row[:, np.newaxis]
        b += error
wrong = np.count_nonzero(fa.dense(X_new, w, b, fa.step)[:, 0] != y_new)
print(f"own perceptron: {wrong} of {len(y_new)} new tumours are taken for the other kind")

X, y = load_digits(return_X_y=True)
X, X_new, y, y_new = train_test_split(X, y, random_state=0)
perceptron = Perceptron(random_state=0).fit(X, y)

# One neuron for each digit; the one with the largest sum has it.
model = fa.Sequential.from_sklearn(perceptron)
predicted = model.classes_[model(X_new).argmax(axis=1)]

wrong = np.count_nonzero(predicted != y_new)
agree = np.count_nonzero(predicted == perceptron.predict(X_new))
print(model)
print(f"scikit-learn's perceptron: {wrong} of {len(y_new)} new digits are taken for others")
print(f"labels equal to scikit-learn's: {agree} of {len(y_new)}")
