"""`make bench`: what Keyturn costs, measured side by side with plain scripts that do the same."""
