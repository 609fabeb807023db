"""What all pages and the API share: errors, bodies, paging, forms."""
