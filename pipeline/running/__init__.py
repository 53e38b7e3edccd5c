"""Running one stage: planning, units, whole stages, executors, finishing."""
