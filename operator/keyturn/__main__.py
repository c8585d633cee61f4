"""`python -m keyturn`."""

from keyturn.cli.main import app

app()
