"""The fixtures of tests/netns, for benches that measure a daemon in a network namespace."""

from __future__ import annotations

from tests.netns.conftest import backend, kernel_log_of_namespaces, namespace, saved, start_daemon

__all__ = ("backend", "kernel_log_of_namespaces", "namespace", "saved", "start_daemon")
