"""Cut pets out of photographs: the small library under the notebooks."""

import os

# albumentations asks a server for updates when it is imported; a notebook must not wait for a network.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

# Waiting threads give up their core. As OpenMP has it they spin, which on a shared machine makes a training step several
# times slower, since they spin on the cores that the others wait for. It must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
