"""`python -m policyserve`, the same as the `policyserve` command."""

from policyserve.entry_point import main

main()
