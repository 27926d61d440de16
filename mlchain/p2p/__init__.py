"""Bytes between peers who know each other: links, requests and gossip, whatever they mean.

`transport` says what a host may rely on, `memory` and `libp2p` provide it. Importing this package
or `transport` does not load py-libp2p (0.8 s); importing `mlchain.p2p.libp2p` does.
"""
