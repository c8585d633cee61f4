"""Proof by traffic: every pod gets a client that uses its credential as a container would, and counts what happens.

- `sandbox.traffic.consumption` says how a pod comes by its credential,
- `sandbox.traffic.secrets` reads Secrets, at once or as late as a kubelet would,
- `sandbox.traffic.probe` makes the calls, one implementation for each provider simulator,
- `sandbox.traffic.clients` is the kubelet stand-in's hook that starts and stops the clients,
- `sandbox.traffic.report` is what was counted.
"""
