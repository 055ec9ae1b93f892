from reconciler.campaign import Campaign as Campaign

__version__: str
