"""Metrics for Prometheus: what the daemon counts, the values of the verb metrics, and how they are written."""
