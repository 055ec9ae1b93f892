from reconciler.build.export import export as export
from reconciler.campaign import Campaign as Campaign

__version__: str
