"""Provider simulators: the providers' APIs over real HTTP, as PROVIDERS.md describes them, with faults on demand.

- `sandbox.simulators.base` serves one provider: routes, recording, counters, a clock that can be shifted,
- `sandbox.simulators.faults` are the ways in which an answer can go wrong,
- `sandbox.simulators.control` is the HTTP interface `/_sim/…` to drive a simulator from another process,
- `sandbox.simulators.stytch`, `.janrain` and `.snaptrade` are the providers; another one is one more module like them.

`python -m sandbox.simulators` runs them without a cluster. What is marked unsettled in PROVIDERS.md is a switch.
"""
