"""A whole cluster, a hostile network and a clock, from one seed."""
