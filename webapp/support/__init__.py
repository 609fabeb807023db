"""Shared by all pages and the API: errors, bodies, paging, forms."""
