"""Puts a private key (PKCS #8, PEM, on standard input) into the form in which cosign keeps its keys, with a password
that is the only argument: scrypt and NaCl's secretbox. So skopeo can sign with a key that was made a moment before."""

import base64
import hashlib
import json
import os
import struct
import sys

MASK = 0xFFFFFFFF


def rotate(value, bits):
    value &= MASK
    return (value << bits | value >> (32 - bits)) & MASK


def rounds(state):
    """The twenty rounds of Salsa20, in place."""
    for _ in range(10):
        for order in (((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
                      ((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14))):
            for a, b, c, d in order:
                state[b] ^= rotate(state[a] + state[d], 7)
                state[c] ^= rotate(state[b] + state[a], 9)
                state[d] ^= rotate(state[c] + state[b], 13)
                state[a] ^= rotate(state[d] + state[c], 18)
    return state


def block(key, middle):
    words, inner = struct.unpack("<8I", key), struct.unpack("<4I", middle)
    fixed = struct.unpack("<4I", b"expand 32-byte k")
    return [fixed[0], *words[:4], fixed[1], *inner, fixed[2], *words[4:], fixed[3]]


def stream(key, nonce, length):
    """XSalsa20."""
    derived = rounds(block(key, nonce[:16]))
    key = struct.pack("<8I", *(derived[at] for at in (0, 5, 10, 15, 6, 7, 8, 9)))
    out = b""
    while len(out) < length:
        state = block(key, nonce[16:] + struct.pack("<Q", len(out) // 64))
        out += struct.pack("<16I", *((a + b) & MASK for a, b in zip(rounds(list(state)), state)))
    return out[:length]


def poly1305(key, message):
    clamp = 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    r, total = int.from_bytes(key[:16], "little") & clamp, 0
    for at in range(0, len(message), 16):
        total = (total + int.from_bytes(message[at:at + 16] + b"\1", "little")) * r % ((1 << 130) - 5)
    return ((total + int.from_bytes(key[16:], "little")) & ((1 << 128) - 1)).to_bytes(16, "little")


def secretbox(key, nonce, message):
    keys = stream(key, nonce, 32 + len(message))
    sealed = bytes(a ^ b for a, b in zip(message, keys[32:]))
    return poly1305(keys[:32], sealed) + sealed


def encoded(value):
    return base64.b64encode(value).decode()


pem = sys.stdin.read()
der = base64.b64decode("".join(line for line in pem.splitlines() if not line.startswith("-")))
salt, nonce = os.urandom(32), os.urandom(24)
key = hashlib.scrypt(sys.argv[1].encode(), salt=salt, n=32768, r=8, p=1, maxmem=1 << 26, dklen=32)
box = {
    "kdf": {"name": "scrypt", "params": {"N": 32768, "r": 8, "p": 1}, "salt": encoded(salt)},
    "cipher": {"name": "nacl/secretbox", "nonce": encoded(nonce)},
    "ciphertext": encoded(secretbox(key, nonce, der)),
}
text = encoded(json.dumps(box).encode())
print("-----BEGIN ENCRYPTED COSIGN PRIVATE KEY-----")
print("\n".join(text[at:at + 64] for at in range(0, len(text), 64)))
print("-----END ENCRYPTED COSIGN PRIVATE KEY-----")
