"""`make demo`: a client secret is rotated on a real control plane while pods use it, shown live and judged by traffic.

What is played is a list of acts (`acts.py`), one for each provider; `run.py` plays them side by side.
"""
