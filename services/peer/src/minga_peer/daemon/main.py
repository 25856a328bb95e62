"""The daemon, wired by hand from top to bottom."""

import asyncio
import logging
import os
import stat
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc.aio
from minga_core.clock import SystemClock
from minga_core.errors import AlreadyRunningError, StorageError
from minga_core.ids import new_generation, parse_address
from minga_core.records import PeerInfo
from minga_protos.control.v1.control_pb2_grpc import add_ControlServiceServicer_to_server
from minga_runtime.logs import configure_logging, log_event
from minga_runtime.metrics import build_info, start_metrics_server
from minga_runtime.process import run_process
from minga_runtime.server import make_server
from prometheus_client import CollectorRegistry

from minga_peer.chunkstore.store import ChunkStore
from minga_peer.chunkstore.table import LocalTable
from minga_peer.clients.locator import LocatorClient
from minga_peer.clients.peer import PeerConnections
from minga_peer.clients.registry import RegistryClient
from minga_peer.clients.wire import SourceAddress
from minga_peer.daemon._metrics import PeerMetrics, StateCollector
from minga_peer.daemon.announcer import Announcer
from minga_peer.daemon.control import ControlService, DaemonFacts, TrafficCounts
from minga_peer.daemon.downloads import Downloads, StoreDestination
from minga_peer.settings import PeerSettings
from minga_peer.transfer.download import Downloader
from minga_peer.transfer.locating import Directory
from minga_peer.transfer.service import PeerService, add_peer_service
from minga_peer.transfer.serving import UploadSlots

log = logging.getLogger(__name__)
