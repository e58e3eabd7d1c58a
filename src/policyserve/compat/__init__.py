"""The founding programs' own names, each a façade over the one server and the one client.

vibe_rl, openpi and wall_x are what their users import. drop-in/ provides the originals' import paths on top of them.
"""
