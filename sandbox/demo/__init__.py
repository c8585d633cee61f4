"""`make demo`: client secrets are rotated on a real control plane while pods use them, shown live, judged by traffic.

What is played is a list of acts (`acts.py`); `run.py` plays them one after the other, the scenes of each side by side.
What was seen (`observed.py`) is drawn by `screen.py`; what was counted (`counting.py`) is judged by `facts.py`.
"""
