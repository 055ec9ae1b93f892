"""The vocabulary: states, manifests, rules, run config, records and plan actions. Pure values only."""
