"""What benchmarks/results_page.py is made of: where figures come from, tables, one file a topic."""
