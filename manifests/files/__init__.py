"""Files on disks and in object stores: where they lie, how they are written, locked and checked."""
