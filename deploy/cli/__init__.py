"""Both programs: one file per command; options and printing shared."""
