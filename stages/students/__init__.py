"""Students: networks that are trained on labels and scored, their episodes, supervision and inputs."""
