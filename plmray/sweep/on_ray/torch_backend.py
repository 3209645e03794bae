"""How the workers of a group find each other: on the network by which their nodes are known to Ray."""

from __future__ import annotations

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig

_TorchBackend: Any = TorchConfig(backend="gloo").backend_cls


class GroupConfig(TorchConfig):  # type: ignore[misc]
    """Ray Train's own, but for two things that go wrong on several hosts; see ``_GroupBackend``."""

    @property
    def backend_cls(self) -> Any:
        return _GroupBackend


class _GroupBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """gloo asks the host's own name for its address, which is often that of loopback: tell it the interface.

        A group that fails to start would keep its placement group, and the next attempt wait for those CPUs.
        """
        try:
            worker_group.execute(use_interface_of_ray)
            super().on_start(worker_group, backend_config)
        except Exception:
            worker_group.get_worker_group_state().placement_group_handle.shutdown()
            raise


def use_interface_of_ray() -> None:
    """Name the interface with the node's address for gloo, unless the environment names one."""
    own = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == own for address in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
