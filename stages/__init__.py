"""What is done: the registry of commands, a folder for each stage, and the rooms that several stages share."""
