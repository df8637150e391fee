"""Cut pets out of photographs: the small library under the notebooks."""

import os

# albumentations asks a server for updates when it is imported; a notebook must not wait for a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Threads that wait give up their core after a short spin. GNU OpenMP's own spin is thirty times longer, which on a shared
# machine makes a training step several times slower: they spin on the cores that the others wait for. (Not to spin at all
# doubles the time of a step on an idle machine.) It must be set before torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
