"""For tests, yours and ours: gateways that misbehave by script, repeatably.

:class:`Faults` is the script, as data or as a line of text. :class:`ScriptedGateway` plays it in this event loop,
:class:`GatewayProcess` in its own process. Without sockets, on a virtual clock: :class:`Simulation` runs a whole client with
such gateways, and with a disk and consumers that follow scripts, too; :class:`Simulator` runs only the choice of gateways.
Names are imported on first use, so that a gateway process starts faster.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .faults import Faults as Faults
    from .process import GatewayProcess as GatewayProcess
    from .script import Window as Window
    from .scripted import ScriptedGateway as ScriptedGateway
    from .serving import serve_forever as serve_forever
    from .serving import stdin_closed as stdin_closed
    from .simulation.consumer import ConsumerScript as ConsumerScript
    from .simulation.dataset import DatasetScript as DatasetScript
    from .simulation.disk_faults import DiskFaults as DiskFaults
    from .simulation.simulation import SimulatedRun as SimulatedRun
    from .simulation.simulation import Simulation as Simulation
    from .simulator import Simulator as Simulator
    from .stats import GatewayStats as GatewayStats
    from .timeline import SimulationReport as SimulationReport
    from .timeline import Workload as Workload

_PLACES = {
    "ConsumerScript": "simulation.consumer",
    "DatasetScript": "simulation.dataset",
    "DiskFaults": "simulation.disk_faults",
    "Faults": "faults",
    "GatewayProcess": "process",
    "GatewayStats": "stats",
    "ScriptedGateway": "scripted",
    "SimulatedRun": "simulation.simulation",
    "Simulation": "simulation.simulation",
    "SimulationReport": "timeline",
    "Simulator": "simulator",
    "Window": "script",
    "Workload": "timeline",
    "serve_forever": "serving",
    "stdin_closed": "serving",
}

__all__ = [  # noqa: PLE0604, RUF100 - the names of _PLACES, which a test compares
    "ConsumerScript",
    "DatasetScript",
    "DiskFaults",
    "Faults",
    "GatewayProcess",
    "GatewayStats",
    "ScriptedGateway",
    "SimulatedRun",
    "Simulation",
    "SimulationReport",
    "Simulator",
    "Window",
    "Workload",
    "serve_forever",
    "stdin_closed",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - whatever the module holds
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PLACES[name]}", __name__), name)
