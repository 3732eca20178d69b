#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the hand-made part of the corpora of the wire targets. usage: corpus_wire.py

Made of the kept messages of protocol 1 and of msgpack that claims more than there is.
"""

import pathlib

HERE = pathlib.Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
FIXTURES = HERE.parent / "fixtures" / "wire" / "v1"

# In the order of fuzz_wire_messages.
KINDS = ("open", "opened", "heartbeat", "close", "digests", "digests_wanted")
ERROR_KIND = len(KINDS)
PLACEMENT_KIND = ERROR_KIND + 1

HOSTILE = {
    "array32": b"\xdd\xff\xff\xff\xff",
    "map32": b"\xdf\xff\xff\xff\xff",
    "text32": b"\xdb\xff\xff\xff\xff",
    "extension": b"\xc9\xff\xff\xff\xff\x01",
    "deep": b"\x91" * 64,
    "wide": b"\xdc\x0f\xff" + b"\x90" * 4095,
}


def write(target, name, data):
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)


def main():
    for index, kind in enumerate(KINDS):
        write("wire_messages", kind, bytes([index]) + (FIXTURES / f"{kind}.msgpack").read_bytes())
    queued = (FIXTURES / "queued.msgpack").read_bytes()
    write("wire_messages", "queued", bytes([KINDS.index("opened")]) + queued)
    for kind in ("open", "opened", "heartbeat"):
        kept = (FIXTURES / f"{kind}_rdma.msgpack").read_bytes()
        write("wire_messages", f"{kind}_rdma", bytes([KINDS.index(kind)]) + kept)
    placement = (FIXTURES / "placement.msgpack").read_bytes()
    write("wire_messages", "placement", bytes([PLACEMENT_KIND]) + placement)
    critical = b"\x81\xa8critical\x91\xa8teleport"
    write("wire_messages", "critical", bytes([KINDS.index("heartbeat")]) + critical)
    error = b'{"error":{"code":"gone","message":"the lease \\u00e4","hint":"open again"}}'
    write("wire_messages", "error", bytes([ERROR_KIND]) + error)
    write("wire_messages", "page", bytes([ERROR_KIND]) + b"<html>502</html>")
    write("wire_read", "read", (FIXTURES / "read.msgpack").read_bytes())
    write("wire_manifest", "manifest", (FIXTURES / "manifest.msgpack").read_bytes())
    for name, data in HOSTILE.items():
        write("wire_messages", name, bytes([KINDS.index("heartbeat")]) + data)
        slices = b"\x81\xa6slices" + data
        write("wire_messages", f"placement_{name}", bytes([PLACEMENT_KIND]) + slices)
        write("wire_read", name, b"\x82\xaageneration\x01\xa6ranges" + data)
        write("wire_manifest", name, data)


if __name__ == "__main__":
    main()
