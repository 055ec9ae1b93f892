"""Is the store what it should be? Every invariant as a check, its breaches as data, repairs as edits."""
