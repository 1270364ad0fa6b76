"""Damaged and made-up files of every kind that is read: one line each, whatever they hold."""
