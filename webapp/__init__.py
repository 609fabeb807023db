"""The web application: server-rendered forms and pages, and the JSON API."""
