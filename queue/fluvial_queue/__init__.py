"""The queue room: the store contract, its implementations, blobs, and the sequencer.

The embedded server is in `fluvial_queue.redis.embedded`: only the supervisor needs it.
"""

from fluvial_queue.blobs import LocalBlobs
from fluvial_queue.contract import (
    OutcomeUnknownError,
    Store,
    StoreError,
    StoreFullError,
    StoreUnavailableError,
    UnsafeStoreError,
)
from fluvial_queue.memory import MemoryStore
from fluvial_queue.opening import open_store
from fluvial_queue.records import (
    AppRecord,
    DeploymentFunctions,
    DeploymentRecord,
    HostRecord,
    TokenRecord,
)

__all__ = [
    "AppRecord",
    "DeploymentFunctions",
    "DeploymentRecord",
    "HostRecord",
    "LocalBlobs",
    "MemoryStore",
    "OutcomeUnknownError",
    "Store",
    "StoreError",
    "StoreFullError",
    "StoreUnavailableError",
    "TokenRecord",
    "UnsafeStoreError",
    "open_store",
]
