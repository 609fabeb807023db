"""The web's side: forms, pages and the JSON API, rendered by the server."""
