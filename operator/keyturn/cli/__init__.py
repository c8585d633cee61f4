"""`keyturn run` and the kubectl plugin."""
