"""The planner: what must change so that the actual state becomes the desired one. Pure."""
