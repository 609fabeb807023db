"""Clients, settings and errors that the other packages build on."""
