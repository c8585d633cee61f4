"""`make demo`: client secrets are rotated on a real control plane while pods use them, shown live, judged by traffic.

What is played is a list of acts (`acts.py`), one for each provider; `run.py` plays them side by side.
"""
