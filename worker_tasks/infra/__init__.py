"""Clients, settings and errors that everything else builds on."""
