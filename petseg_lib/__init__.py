"""Cut pets out of photographs: the small library under the notebooks."""

import os

# albumentations asks a server for updates when it is imported; a notebook must not wait for a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
