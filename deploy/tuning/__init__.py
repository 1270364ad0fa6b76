"""Measured choices: candidate schedules, timed inside whole networks, kept where they win."""
