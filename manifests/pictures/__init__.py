"""Pictures and masks: where their bytes come from, and the one decoder."""
