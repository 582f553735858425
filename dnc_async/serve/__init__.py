"""The embedded trustless gateway: a local store, served over HTTP to clients that verify.

It speaks the trustless part of the gateway specification: raw blocks and CAR streams, nothing deserialized.
"""

from __future__ import annotations

from .app import make_app
from .hooks import NoHooks, ResponseHooks
from .server import GatewayServer

__all__ = ["GatewayServer", "NoHooks", "ResponseHooks", "make_app"]
