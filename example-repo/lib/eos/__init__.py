"""Equation of state of fcc metals with the EMT potential: the code of this campaign.

``jobs`` holds the calculations, ``fit`` the analysis, ``report`` the summary, ``flows`` a flow made in
Python and ``reference`` the numbers to compare with. ASE, SciPy and Matplotlib are imported inside the
functions that use them, so that a job starts fast and a flow can be built where they are not installed.
"""
