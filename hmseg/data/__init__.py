"""Data sets: their classes, folders and augmentation."""
