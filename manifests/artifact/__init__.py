"""One artifact: plan, units and their records, arrays, tables and readers."""
