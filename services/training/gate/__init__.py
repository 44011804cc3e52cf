"""The checks that a new version of a scenario's model must pass. Each check is a pure function of what was measured."""
