"""Edwards25519 by the book (RFC 8032 section 5.1), slow and lenient, to make edge-case signatures.

`naive_verify` checks the one equation S B = R + h A and nothing else: it is the control beside
libsodium, the verifier one writes first.
"""

from __future__ import annotations

from hashlib import sha512

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]
IDENTITY: Point = (0, 1)


def add(a: Point, b: Point) -> Point:
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + k, -1, P) % P
    y = (y1 * y2 + x1 * x2) * pow(1 - k, -1, P) % P
    return x, y


def multiply(n: int, point: Point) -> Point:
    result = IDENTITY
    while n:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def negate(point: Point) -> Point:
    return -point[0] % P, point[1]


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(data: bytes) -> Point | None:
    """Return the point, also of an encoding that is not canonical."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, (number & (2**255 - 1)) % P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - square) % P:
        return None
    return (x if x & 1 == sign else -x % P), y


BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert BASE is not None


def torsion() -> Point:
    """Return a point of order 8."""
    y = 2
    while True:
        point = decode(y.to_bytes(32, "little"))
        if point is not None:
            small = multiply(L, point)
            if multiply(4, small) != IDENTITY:
                return small
        y += 1


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(sha512(r + a + message).digest(), "little") % L


def naive_verify(public: bytes, message: bytes, signature: bytes, cofactor: int = 1) -> bool:
    a, r = decode(public), decode(signature[:32])
    if a is None or r is None:
        return False
    h = challenge(signature[:32], public, message)
    left = multiply(cofactor * int.from_bytes(signature[32:], "little"), BASE)
    return left == multiply(cofactor, add(r, multiply(h, a)))
