"""Naive Bayes on documents: does it hold where products of probabilities underflow?

    PYTHONPATH=. python benchmarks/documents.py TRAIN.txt.gz TEST.txt.gz [--words 500] [--counts]

A line is a document: its class, then the numbers of its words, below --words. Prints the accuracy
on the test documents of our multinomial naive Bayes and perceptron and of scikit-learn's, and that
of naive Bayes as one would first write it: probabilities multiplied, which become 0 in documents
of a few hundred words. A word counts once in a document unless --counts is given.
"""

from __future__ import annotations

import argparse
import gzip
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import Perceptron
from sklearn.naive_bayes import MultinomialNB

from mlchain.ml_runtime import Dataset, Task, Trainer, make_plan


def read(path: Path, words: int, counts: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the counts of words, or their presence, and the classes of a file's documents."""
    lines = [line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    found = np.array([np.bincount(np.array(line[1:], int), minlength=words) for line in lines])
    x = found if counts else found > 0
    return x.astype(float), np.array([int(line[0]) for line in lines])


def train(model: str, x: np.ndarray, y: np.ndarray, batch: int, steps: int, **options: Any) -> Any:
    """Return the model file that was trained on x and y."""
    data = Dataset.from_arrays(x, y, classes=int(y.max()) + 1)
    unit = 2.0 ** data.header.exponents[0]
    sizes = {"features": x.shape[1], "classes": data.outputs}
    plan = make_plan(model, batch=batch, unit=unit, **sizes, **options)
    trainer = Trainer(Task(plan.encode(), steps, steps, len(x), 0), data, b"\x01" * 32)
    return trainer.model(trainer.run_chunk(0, trainer.initial_state()))


def multiplied(x: np.ndarray, y: np.ndarray, xt: np.ndarray) -> np.ndarray:
    """Return the classes that the product of probabilities gives."""
    sums = np.array([x[y == c].sum(0) + 1 for c in range(y.max() + 1)])
    chances = sums / sums.sum(1, keepdims=True)
    return np.array([np.prod(chances**row, axis=1).argmax() for row in xt])


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("test", type=Path)
    parser.add_argument("--words", type=int, default=500)
    parser.add_argument("--counts", action="store_true")
    arguments = parser.parse_args()
    paths = arguments.train, arguments.test
    (x, y), (xt, yt) = (read(path, arguments.words, arguments.counts) for path in paths)
    print(f"{len(x)} documents of {x.sum(1).mean():.0f} words, {len(xt)} to test on\n")
    bayes = train("multinomial_nb", x, y, len(x), 1)
    walk = train("perceptron", x, y, 1, 10 * len(x))
    rows = {
        "multinomial_nb": (bayes.scores(xt).argmax(1), MultinomialNB().fit(x, y).predict(xt)),
        "perceptron": (
            walk.scores(xt).argmax(1),
            Perceptron(max_iter=10, tol=None).fit(x, y).predict(xt),
        ),
        "probabilities multiplied": (multiplied(x, y, xt), None),
    }
    print("| | mlchain | scikit-learn |\n|---|---|---|")
    for name, (ours, theirs) in rows.items():
        peer = "" if theirs is None else f"{np.mean(theirs == yt):.3f}"
        print(f"| {name} | {np.mean(ours == yt):.3f} | {peer} |")


if __name__ == "__main__":
    main()
