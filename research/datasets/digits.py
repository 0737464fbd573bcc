"""scikit-learn's digits: 1797 handwritten digits of 8x8 pixels from 0 to 16, which come with the library."""

import numpy as np
from sklearn.datasets import load_digits

from research.datasets.base import Dataset, split, standardised


def read() -> Dataset:
    """The digits, 1437 for training and 360 for the test; the split is always the same."""
    x, y = load_digits(return_X_y=True)
    train, test = split("digits", np.reshape(x, (-1, 8, 8, 1)), np.asarray(y), seed=0)
    return standardised("digits", "digits", train, test, [str(digit) for digit in range(10)])
