"""Restores a backup set with none of fastvlm-ops: a second reader of docs/backup-format.md.

    pip install boto3 blake3 zstandard cryptography
    python restore_min.py BUCKET PREFIX TARGET [SET-ID]     (the newest without SET-ID; TARGET must be new)
Environment: FASTVLM_PASSPHRASE or FASTVLM_KEY_FILE (a path), and what boto3 reads (AWS_ACCESS_KEY_ID, …,
AWS_ENDPOINT_URL)."""

# fmt: off
import hashlib
import hmac
import json
import os
import stat
import struct
import sys
from base64 import b64decode
from contextlib import suppress

import blake3
import boto3
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BUCKET, PREFIX, TARGET = sys.argv[1], f"{sys.argv[2].strip('/')}/".lstrip("/"), os.fsencode(sys.argv[3])
S3, EPOCHS, PLACES, FRAME, SNAPSHOTS, SETS = boto3.client("s3"), {}, {}, {}, {}, {}

def get(name, **options):
    return S3.get_object(Bucket=BUCKET, Key=PREFIX + name, **options)["Body"].read()

def names(below):
    pages = S3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=PREFIX + below)
    return [item["Key"][len(PREFIX) :] for page in pages for item in page.get("Contents", ())]

def require(ok, problem, value=None):
    return value if ok else sys.exit(problem)

def derive(key, info, salt=bytes(32)):  # §2: HKDF-SHA256, one block
    extracted = hmac.digest(salt, key, "sha256")
    return hmac.digest(extracted, b"fastvlm-ops/1/" + info + b"\x01", "sha256")

def unwrap(slot, repository):  # §2
    kdf, aad = slot["kdf"], f"fastvlm-ops/1/key-slot/{repository}/{slot['slot']}".encode()
    salt, nonce, wrapped = map(b64decode, (kdf["salt"], slot["nonce"], slot["key_ring"]))
    if slot["kind"] == "key-file":
        with open(os.environ["FASTVLM_KEY_FILE"], "rb") as file:
            kek = derive(file.read(), b"key-file", salt)
    else:
        passphrase, cost = os.environ["FASTVLM_PASSPHRASE"].encode(), {name: kdf[name] for name in "nrp"}
        kek = hashlib.scrypt(passphrase, salt=salt, **cost, maxmem=1 << 30, dklen=32)
    ring = json.loads(AESGCM(kek).decrypt(nonce, wrapped, aad))
    keys = {int(epoch): bytes.fromhex(key) for epoch, key in ring["epochs"].items()}
    return bytes.fromhex(ring["root"]), keys, bytes.fromhex(ring.get("private_key", ""))

def add_epoch(epoch, slot, private_key, repository):  # §2
    number, sealed = epoch["epoch"], epoch["sealed"].get(slot)
    if number not in EPOCHS and sealed and private_key:
        private, ephemeral = X25519PrivateKey.from_private_bytes(private_key), b64decode(sealed["ephemeral"])
        shared = private.exchange(X25519PublicKey.from_public_bytes(ephemeral))
        kek = derive(shared, b"epoch-key", ephemeral + private.public_key().public_bytes_raw())
        aad = f"fastvlm-ops/1/epoch/{repository}/{number}/{slot}".encode()
        EPOCHS[number] = AESGCM(kek).decrypt(bytes(12), b64decode(sealed["key"]), aad)

def open_slots(repository):  # §2; a slot of another secret, or a damaged one, is passed over
    found, root = names(f"keys/{repository}/"), None
    for name in (name for name in found if "/epochs/" not in name):
        with suppress(InvalidTag, ValueError, KeyError):
            slot = json.loads(get(name))
            root, keys, private_key = unwrap(slot, repository)
            EPOCHS.update(keys)
            for epoch in (name for name in found if "/epochs/" in name):
                add_epoch(json.loads(get(epoch).split(b"\n")[0]), slot["slot"], private_key, repository)
    return require(root, "the passphrase or key file fits no key slot", root)

def cipher(header, kind):  # §4
    epoch, _, salt = struct.unpack("<H16s32s", header[6:56])
    key = EPOCHS.get(epoch) or sys.exit(f"the slot that opened was left out of key epoch {epoch}")
    return AESGCM(derive(key, b"object/" + kind, salt))

def unseal(kind, name, data):  # §4
    return zstandard.decompress(cipher(data, kind).decrypt(bytes(12), data[56:], data[:56] + name.encode()))

def read_segment(data):  # §6
    at = 4 + int.from_bytes(data[:4], "little")
    while at < len(data):
        digest, _, count = struct.unpack_from("<32sQI", data, at)
        pack, block = f"packs/{digest.hex()[:2]}/{digest.hex()}", data[at + 44 : at + 44 + 56 * count]
        places = {chunk_id: (pack, *record) for chunk_id, *record in struct.iter_unpack("<32s5IH2B", block)}
        PLACES.update(places if pack in PACKS else {})  # of the others a collection has moved what is needed
        at += 44 + 56 * count

def chunk(chunk_id):  # §5
    pack, offset, stored, raw, inner, length, number, codec, stride = PLACES[chunk_id]
    if (pack, number) not in FRAME:
        header = get(pack, Range="bytes=0-55")
        sealed = get(pack, Range=f"bytes={offset}-{offset + stored - 1}")
        body = cipher(header, b"P").decrypt(number.to_bytes(12, "big"), sealed, header)
        body = zstandard.decompress(body, max_output_size=raw) if codec else body
        joined, plane = bytearray(body), len(body) // stride
        for k in range(stride):
            joined[k : plane * stride : stride] = body[k * plane : (k + 1) * plane]
        FRAME.clear()
        FRAME[pack, number] = bytes(joined)
    data = FRAME[pack, number][inner : inner + length]
    found = blake3.blake3(data, key=derive(ROOT, b"chunk-id")).digest()
    return require(found == chunk_id, "a chunk is damaged", data)

def content(ids):  # §7, id lists
    listed = b"".join(chunk(bytes.fromhex(listing)) for listing in ids.get("lists", ()))
    joined = listed or bytes.fromhex("".join(ids.get("chunks", ())))
    return b"".join(chunk(joined[at : at + 32]) for at in range(0, len(joined), 32))

def read_log(name):  # §8
    line, mac, _ = get(name).split(b"\n")  # §3
    require(blake3.blake3(line, key=derive(ROOT, b"log")).hexdigest().encode() == mac, f"{name}: MAC")
    body = (entry := json.loads(line))["body"]
    require(name == f"log/{entry['seq']:020d}.json", f"{name} is out of place")
    if entry["type"] in ("snapshot", "checkpoint"):
        whole = SNAPSHOTS.get(body.get("parent"), {}) | body  # what it does not say is as in its parent
        SNAPSHOTS.update(body.get("snapshots", {body.get("snapshot_id"): whole}))
    if entry["type"] in ("backup-set", "checkpoint"):
        SETS.update(body.get("sets", {body.get("set_id"): body}))
    for gone in body["snapshots"] + body["sets"] if entry["type"] == "forget" else ():
        SNAPSHOTS.pop(gone, None), SETS.pop(gone, None)

def make(entry, path, link, first):  # §7
    if first:
        os.link(first, path)
    elif entry["type"] == "directory":
        os.mkdir(path, 0o700)
    elif entry["type"] == "symlink":
        os.symlink(link, path)
    elif entry["type"] != "file":
        os.mknod(path, 0o600 | (stat.S_IFIFO if entry["type"] == "fifo" else stat.S_IFSOCK))
    else:
        stored = content(entry)  # in memory: this is the short reader
        require(blake3.blake3(stored).hexdigest() == entry["blake3"], f"{path!r} does not have its hash")
        with open(path, "xb") as file:
            for start, length in entry.get("extents", [[0, len(stored)]]):
                file.seek(start)
                stored = stored[file.write(stored[:length]) :]
            file.truncate(entry["size"])

def both(entry, member):  # §7: text, or base64 of bytes that are not UTF-8
    return b64decode(entry.get(f"{member}_b64", "")) or entry.get(member, "").encode()

def restore(record, root):  # §7
    data = get(record["manifest"])
    require(hashlib.sha256(data).hexdigest() == record["sha256"], "not the manifest that was committed")
    tree = content(json.loads(unseal(b"M", record["manifest"], data))["tree"])
    placed = []
    for entry in map(json.loads, tree.splitlines()):
        path, link, first = (both(entry, member) for member in ("path", "target", "hard_link"))
        require(not {b"..", b""} & set(path.split(b"/")), f"unsafe path {path!r}")
        path = root if path == b"." else os.path.join(root, path)
        make(entry, path, link, os.path.join(root, first) if first else None)
        placed.append((entry, path))
    for entry, path in reversed(placed):
        if os.geteuid() == 0:
            os.chown(path, entry["uid"], entry["gid"], follow_symlinks=False)
        if entry["type"] != "symlink":
            os.chmod(path, entry["mode"])
        for name, value in entry.get("xattrs", {}).items():
            os.setxattr(path, name, b64decode(value), follow_symlinks=False)
        os.utime(path, ns=(entry["mtime_ns"],) * 2, follow_symlinks=False)

ROOT = open_slots(json.loads(get("config.json").split(b"\n")[0])["repository_id"])
PACKS = set(names("packs/"))
for segment in names("index/"):
    read_segment(unseal(b"I", segment, get(segment)))
for log_name in (log := names("log/"))[max(len(log) // 100 * 100 - 1, 0) :]:
    read_log(log_name)
os.makedirs(TARGET)
for component, snapshot_id in SETS[sys.argv[4] if len(sys.argv) > 4 else list(SETS)[-1]]["snapshots"].items():
    restore(SNAPSHOTS[snapshot_id], os.path.join(TARGET, component.encode()))
    print(f"restored {component} from {snapshot_id}")
