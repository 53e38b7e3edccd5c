"""The files that a finished artifact consists of. Lock and log differ between runs, and nothing tells of the rest."""

import hashlib

from ..errors import CorruptArtifact
from ..files.digests import FileDigest
from . import ledger
from .artifact import ARTIFACT, Artifact
from .plan import PLAN


def read_file_digests(artifact: Artifact) -> dict[str, FileDigest]:
    """By name, in the order of names. Reads the records alone; raises CorruptArtifact where they are not the ones that
    were finished with."""
    at, plan, summary = artifact.place, artifact.plan, artifact.summary
    own = {name: FileDigest.of(at.read(name)) for name in (PLAN, ARTIFACT)}
    if own[PLAN].sha256 != summary.plan_sha256 or own[ARTIFACT].sha256 != artifact.digest:
        raise CorruptArtifact(f"{at} is not what it was a moment ago; wait for its run to end")
    found = own | dict(summary.files)
    for group in plan.groups:
        running = hashlib.sha256()
        for unit in range(plan.layout(group).num_units):
            name = ledger.record_name(group.ledger, unit)
            record = ledger.read_record(at, group.ledger, unit)
            if record is None:
                raise CorruptArtifact(f"{at.path(name)} is missing; run its stage again, or restore it from a copy")
            found[name] = FileDigest.of(at.read(name))
            running.update(bytes.fromhex(found[name].sha256))
            found |= record.files
        if running.hexdigest() != summary.ledgers[group.ledger]:
            raise CorruptArtifact(
                f"{at.path(group.ledger)} holds other records than those that {ARTIFACT} vouches for; "
                "run its stage again, or restore it from a copy"
            )
    return dict(sorted(found.items()))
