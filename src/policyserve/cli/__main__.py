"""`python -m policyserve.cli`, the same as the `policyserve` command."""

from policyserve.cli import main

main()
