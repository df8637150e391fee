"""From files on disk to batches: the index of pets, masks, cache, augmentation, statistics, synthetic pets."""
