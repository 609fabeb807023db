"""The release phase: checks the settings and the servers, makes the indexes. ``python -m worker_tasks.release``"""

import sys

from redis.exceptions import ResponseError

from worker_tasks import ledger
from worker_tasks.connections import close_connections, connections
from worker_tasks.settings import SettingsError


def release() -> str | None:
    """Makes ready what web and worker rely on; returns what is wrong, if anything."""
    try:
        answers = connections().ping()
    except SettingsError as error:
        return str(error)
    if away := {name: answer for name, answer in answers.items() if answer != "ok"}:
        return "; ".join(f"{name} does not answer ({reason})" for name, reason in away.items())
    ledger.ensure_indexes()
    ledger.label_old_tasks()
    if warning := eviction_warning():
        print(warning, file=sys.stderr)
    return None


def eviction_warning() -> str | None:
    """Redis may be set to delete queued tasks when it is full, in silence."""
    try:
        policy = str(connections().queue.config_get("maxmemory-policy").get("maxmemory-policy"))
    except ResponseError as error:
        # Hosted servers often keep their configuration to themselves.
        return f"Redis does not tell its maxmemory-policy ({error}): make sure that it is noeviction or volatile-ttl."
    if policy.startswith("allkeys-"):
        return (
            f"Redis is set to {policy}: when it is full it deletes queued tasks. "
            "Set maxmemory-policy to noeviction or volatile-ttl."
        )
    return None


if __name__ == "__main__":
    problem = release()
    close_connections()
    sys.exit(f"release: {problem}" if problem else 0)
