"""Running safely: whole files, provenance, checkpoints, leases, forked jobs; knows no science."""
