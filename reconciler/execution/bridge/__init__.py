"""The one door to jobflow: building flows, identity of jobs, the launcher, and foreign job stores."""
