"""FlowSets: from a table of items and a template to the documents of ordinary flows."""
