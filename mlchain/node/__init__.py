"""The host: clock, disk, network and child processes around the pure core."""
