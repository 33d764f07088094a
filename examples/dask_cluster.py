"""More data than a process may hold: dask's worker processes with our functions and a network.

Five million noisy handwritten digits, 1.3 GB, are read by workers that may take 400 MB each: dask
makes, contrasts, classifies and forgets them chunk by chunk. Numbers of workers to compare may be
given: ``python examples/dask_cluster.py 1 2``
"""

import resource
import sys
import time
import warnings

import dask
import dask.array as da
import numpy as np
from distributed import Client, LocalCluster

import fastact as fa

IMAGES, CHUNK = 5_000_000, 20_000
LIMIT = "400MB"


def contrast(pixels):
    """For arrays of NumPy and of dask: ufuncs leave the lazy ones lazy."""
    return fa.sigmoid(8 * pixels - 4)


def trained():
    """Digits, labels and a network of scikit-learn that knows them."""
    # Workers import this file as well, and do not need all of this.
    from sklearn.datasets import load_digits
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    X, y = load_digits(return_X_y=True)
    X = (X / 16).astype(np.float32)
    mlp = MLPClassifier((64,), max_iter=40, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 40 rounds are enough for here
        return X, y, mlp.fit(contrast(X), y)


def rows(index, table):
    """For a chunk: rows of a table that each worker has once."""
    return table[index]


def predict(pixels, net):
    """For a chunk: what a network says that each worker has once."""
    return net(pixels)


def peak():
    """Megabytes that this process has taken at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(counts):
    """Classify with so many workers."""
    X, y, mlp = trained()
    net = fa.Sequential.from_sklearn(mlp)

    # As an argument and delayed, a network is sent to each worker once. As the function of
    # map_blocks, every task would keep a copy of its own, with buffers, until the end.
    there, pixels = dask.delayed(net), dask.delayed(X)

    random = da.random.default_rng(0)
    index = random.integers(0, len(X), size=IMAGES, chunks=CHUNK)
    shape = (index.chunks[0], X.shape[1:])
    clean = index.map_blocks(rows, table=pixels, chunks=shape, new_axis=1, meta=X[:0])
    noise = random.random(clean.shape, dtype="f4", chunks=clean.chunks)
    images = clean + (noise - np.float32(0.5))
    shape = (index.chunks[0], (net.out_features,))
    chances = contrast(images).map_blocks(predict, net=there, chunks=shape, meta=net(X[:0]))
    labels = chances.argmax(axis=1)  # nothing has been computed so far
    share = (labels == index.map_blocks(rows, table=y, dtype=y.dtype)).mean()
    print(f"{len(images):,} images, {images.nbytes / 1e6:.0f} MB; {LIMIT} for a worker")

    seconds = []
    for count in counts:
        cluster = LocalCluster(
            n_workers=count, threads_per_worker=1, memory_limit=LIMIT, dashboard_address=":0"
        )
        with cluster, Client(cluster) as client:
            client.run(lambda: net(contrast(X[:1])))  # loads what the workers need
            start = time.perf_counter()
            known = share.compute()
            seconds.append(time.perf_counter() - start)
            most = max(client.run(peak).values())
            first = labels.partitions[0].compute()
        speedup = f"{seconds[0] / seconds[-1]:.2f} times as fast as the first"
        print(f"workers: {count}; {seconds[-1]:.1f} s, {speedup}; {most:.0f} MB at most in one")
    print(f"{known:.2%} are recognised")

    some = images.partitions[0].compute(scheduler="synchronous")
    agree = np.count_nonzero(first == mlp.predict(contrast(some)))
    print(f"labels equal to scikit-learn's: {agree} of {len(some)}")


if __name__ == "__main__":
    main([int(count) for count in sys.argv[1:]] or [2])
