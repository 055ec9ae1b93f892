"""Building flows: jobflow and the user's code run in a process of their own."""
