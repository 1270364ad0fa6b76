"""The tables and figures of the paper, measured on the user's own device."""
