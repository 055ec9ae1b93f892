"""Views: plans, records and diagnostics as text for people and as JSON for programs."""
