"""Files on disks and in object stores: places, writing, locks and checks."""
