"""Linear regression: one neuron without an activation.

Patients of the diabetes data; how the disease progresses in a year from ten measurements.
"""

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

import fastact as fa

X, y = load_diabetes(return_X_y=True)
X, X_new, y, y_new = train_test_split(X, y, random_state=0)
regression = LinearRegression().fit(X, y)

# y = X w + b
W, b = regression.coef_[:, np.newaxis], np.atleast_1d(regression.intercept_)
predicted = fa.dense(X_new, W, b)[:, 0]

# The same from the fitted estimator, with the weights packed once for many calls.
model = fa.Sequential.from_sklearn(regression)
assert np.array_equal(model(X_new)[:, 0], predicted)

explained = 1 - np.var(y_new - predicted) / np.var(y_new)
difference = np.abs(predicted - regression.predict(X_new)).max()
print(model)
print(f"explains {explained:.0%} of the variance among {len(y_new)} new patients")
print(f"first three: {predicted[:3].round(1)}, measured {y_new[:3]}")
print(f"largest difference from scikit-learn: {difference:.0e}")
