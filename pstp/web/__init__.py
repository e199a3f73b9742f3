"""The web UI's server half: what the HTTP API answers with."""
