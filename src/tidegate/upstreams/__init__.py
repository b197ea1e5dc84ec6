"""The family of doors to model servers."""
