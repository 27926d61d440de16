"""Agreement (a sans-I/O Tendermint) and, in `work`, the rules of useful work. No execution here."""
