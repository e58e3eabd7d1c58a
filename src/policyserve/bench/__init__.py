"""Drives a policy server as its robots would and says where the time goes: `policyserve bench` without its flags."""
