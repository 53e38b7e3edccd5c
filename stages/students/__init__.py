"""What is trained on cached labels, and judged: networks, episodes, supervision. All of it is functions of
what was stored; none of it reads a file."""
