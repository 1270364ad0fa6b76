"""The architecture search (paper section 3.2): one supernet, one budget."""
