"""One artifact: its plan, its units and their records, its arrays and tables, and its readers."""
