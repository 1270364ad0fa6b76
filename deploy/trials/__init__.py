"""Candidate schedules, each timed beside the rule's inside a whole network."""
