"""The consumer: incremental learning, one batch at a time, the last batches held out for the score."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from dnc_async.demo.flights import missing

_COMPONENTS = 2000
_GAMMA = 0.05


@dataclass(frozen=True, slots=True)
class Score:
    """On the held-out batches; ``majority`` is the accuracy of always saying the more frequent label."""

    accuracy: float
    auc: float
    majority: float


class Learner:
    """StandardScaler, then RBFSampler, then a logistic regression by averaged SGD; about 40 ms for a batch of 4096."""

    def __init__(self, seed: int, features: int) -> None:
        try:
            from sklearn.kernel_approximation import RBFSampler  # noqa: PLC0415 - an extra
            from sklearn.linear_model import SGDClassifier  # noqa: PLC0415
            from sklearn.preprocessing import StandardScaler  # noqa: PLC0415
        except ImportError as error:
            raise missing() from error
        self._scaler: Any = StandardScaler()
        self._sampler: Any = RBFSampler(gamma=_GAMMA, n_components=_COMPONENTS, random_state=seed)
        self._sampler.fit(np.zeros((1, features), dtype=np.float32))
        self._model: Any = SGDClassifier(loss="log_loss", average=True, random_state=seed)
        self._held_out: list[tuple[npt.NDArray[np.float64], npt.NDArray[np.int8]]] = []
        self.computed_s = 0.0

    def learn(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.int8]) -> None:
        """One step on one batch."""
        began = time.perf_counter()
        self._scaler.partial_fit(x)
        self._model.partial_fit(self._sampler.transform(self._scaler.transform(x)), y, classes=[0, 1])
        self.computed_s += time.perf_counter() - began

    def hold_out(self, x: npt.NDArray[np.float32], y: npt.NDArray[np.int8]) -> None:
        """Predict a batch that is never learned from."""
        began = time.perf_counter()
        self._held_out.append((self._model.decision_function(self._sampler.transform(self._scaler.transform(x))), y))
        self.computed_s += time.perf_counter() - began

    def score(self) -> Score:
        """The score on what was held out."""
        from sklearn.metrics import roc_auc_score  # noqa: PLC0415 - an extra

        decision = np.concatenate([decision for decision, _ in self._held_out])
        y = np.concatenate([y for _, y in self._held_out])
        share = float(np.mean(y))
        return Score(
            accuracy=float(np.mean((decision > 0) == (y == 1))),
            auc=float(roc_auc_score(y, decision)),
            majority=max(share, 1 - share),
        )

    def fingerprint(self) -> str:
        """A hash of all weights: equal only where they are equal to the bit."""
        state = hashlib.sha256()
        for array in (self._model.coef_, self._model.intercept_, self._scaler.mean_, self._scaler.var_):
            state.update(np.ascontiguousarray(array).tobytes())
        return state.hexdigest()
