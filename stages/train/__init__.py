"""Train students on a published dataset."""
