"""Latency tables: built from measured networks, and checked against others."""
