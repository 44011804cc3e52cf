"""An adaptation that is differentially private for users (docs/adr/0015-differential-privacy.md)."""
