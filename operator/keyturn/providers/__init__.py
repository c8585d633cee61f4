"""Providers: one protocol, one explicit table, one module for each provider."""
