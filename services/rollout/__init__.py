"""Moves a scenario's pool to a wanted model version on Kubernetes, in steps, watched by its guardrails."""
