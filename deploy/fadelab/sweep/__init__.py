"""Many runs of one experiment: grid points, variants and paired seeds, resumable."""
