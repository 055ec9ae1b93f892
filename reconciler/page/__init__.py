"""Pages for people: the documents that ``-o json`` prints, as HTML.

``report.py`` renders them with the template, style and script beside it, ``drawing.py`` draws the graph of a
flow. Nothing here reads a store or a repository.
"""
