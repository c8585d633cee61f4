"""The pure core: given what was observed, decide what to do next. No I/O, no clock, no logging."""
