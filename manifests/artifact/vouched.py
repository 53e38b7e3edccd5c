"""The files of a finished artifact, without lock and log, which differ between runs."""

import hashlib

from ..errors import CorruptArtifact
from ..files.digests import FileDigest
from . import ledger
from .artifact import ARTIFACT, Artifact
from .plan import PLAN


def read_file_digests(artifact: Artifact) -> dict[str, FileDigest]:
    """Name → digest, sorted by name. Reads the records only; raises CorruptArtifact if they changed since finishing."""
    at, plan, summary = artifact.place, artifact.plan, artifact.summary
    own = {name: FileDigest.of(at.read(name)) for name in (PLAN, ARTIFACT)}
    if own[PLAN].sha256 != summary.plan_sha256 or own[ARTIFACT].sha256 != artifact.digest:
        raise CorruptArtifact(f"{at} changed while it was read; wait for its run to end")
    digests = own | dict(summary.files)
    for group in plan.groups:
        running = hashlib.sha256()
        for unit in range(plan.layout(group).num_units):
            name = ledger.record_name(group.ledger, unit)
            record = ledger.read_record(at, group.ledger, unit)
            if record is None:
                raise CorruptArtifact(f"{at.path(name)} is missing; run its stage again, or restore it from a copy")
            digests[name] = FileDigest.of(at.read(name))
            running.update(bytes.fromhex(digests[name].sha256))
            digests |= record.files
        if running.hexdigest() != summary.ledgers[group.ledger]:
            raise CorruptArtifact(
                f"{at.path(group.ledger)} does not hold the records that {ARTIFACT} lists; "
                "run its stage again, or restore it from a copy"
            )
    return dict(sorted(digests.items()))
