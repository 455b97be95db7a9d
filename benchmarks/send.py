"""One pynetdicom sender: `python -m benchmarks.send HOST PORT CALLED CALLING FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path

from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE


def main(host: str, port: str, called: str, calling: str, folder: str) -> int:
    """Send the files of *folder* over one association; returns how many failed."""
    sender = AE(ae_title=calling)
    sender.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = sender.associate(host, int(port), ae_title=called)
    if not association.is_established:
        return 1
    failed = 0
    for path in sorted(Path(folder).iterdir()):
        answer = association.send_c_store(dcmread(path))
        failed += getattr(answer, "Status", None) != 0x0000
    association.release()
    return min(failed, 100)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
