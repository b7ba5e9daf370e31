"""Vendors and a phone caller on loopback, speaking the real wire formats.

Nothing here knows the product, and the product does not know this package: they meet on sockets only.
"""
