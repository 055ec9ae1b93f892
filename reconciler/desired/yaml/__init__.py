"""YAML in and out: text to checked documents with places, and edits that leave every other byte alone."""
