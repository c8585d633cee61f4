"""Keyturn: a Kubernetes operator that rotates client secrets without downtime."""

__version__ = "0.1.0"
