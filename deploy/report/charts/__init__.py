"""Pictures: SVG that takes its colours from the page and says what a point is."""
