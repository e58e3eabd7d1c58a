"""`python -m policyserve`, the same as the `policyserve` command."""

from policyserve.cli import main

main()
