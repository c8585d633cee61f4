"""Kopf handlers, index and queue, and the reconciler: observe, decide, act, record."""
