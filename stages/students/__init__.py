"""What is trained on cached labels, and judged: networks, episodes, supervision, and where their inputs come from."""
