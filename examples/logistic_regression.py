"""Logistic regression: one neuron with the sigmoid.

Tumours of the breast cancer data; the probability that one is benign from thirty measurements.
"""

import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import fastact as fa

X, y = load_breast_cancer(return_X_y=True)
X, X_new, y, y_new = train_test_split(X, y, random_state=0)
scaler = StandardScaler().fit(X)
X, X_new = scaler.transform(X), scaler.transform(X_new)
regression = LogisticRegression().fit(X, y)

# p = sigmoid(X w + b)
benign = fa.dense(X_new, regression.coef_.T, regression.intercept_, fa.sigmoid)[:, 0]

# From the fitted estimator come the columns of predict_proba: malignant, benign.
model = fa.Sequential.from_sklearn(regression)
probabilities = model(X_new)
assert np.array_equal(probabilities[:, 1], benign)
predicted = model.classes_[probabilities.argmax(axis=1)]

wrong = np.count_nonzero(predicted != y_new)
agree = np.count_nonzero(predicted == regression.predict(X_new))
print(model)
print(f"{wrong} of {len(y_new)} new tumours are taken for the other kind")
print(f"first three, probability of being benign: {benign[:3].round(4)}")
print(f"labels equal to scikit-learn's: {agree} of {len(y_new)}")
