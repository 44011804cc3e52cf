"""Brings bundles to where a process needs them, verified: the init container of every pod that reads models."""
