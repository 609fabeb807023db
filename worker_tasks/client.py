"""The clients of the origin, for a shell: ``python -m worker_tasks.client submit u1 --metadata reason=audit``."""

import argparse
import sys

from kombu.utils.encoding import bytes_to_str

from worker_tasks.infra.connections import connections
from worker_tasks.infra.errors import DovetailError, InvalidInput, named_driver_errors
from worker_tasks.infra.settings import SettingsError
from worker_tasks.joins.plan import user_orders
from worker_tasks.submission import submit
from worker_tasks.tasks import join_users_orders


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; 0 if it went well, 1 if not, 2 if it was not understood."""
    chosen = _parser().parse_args(arguments)
    try:
        return chosen.command(chosen)
    except (DovetailError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1


def _submit(chosen: argparse.Namespace) -> int:
    if complaint := user_orders.user_id_complaint(chosen.user_id):
        raise InvalidInput({"user_id": complaint})
    print(submit(join_users_orders, chosen.user_id, metadata=dict(chosen.metadata)))
    return 0


def _fetch(chosen: argparse.Namespace) -> int:
    with named_driver_errors():
        joined = connections().results.get(user_orders.result_key(chosen.user_id))
    if joined is None:
        print(f"There is no result for {chosen.user_id}: never joined, expired, or lost.", file=sys.stderr)
        return 1
    print(bytes_to_str(joined))
    return 0


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker_tasks.client", description=__doc__)
    commands = parser.add_subparsers(required=True)
    submitting = commands.add_parser("submit", help="ask for a user's orders; prints the task id without waiting")
    submitting.add_argument("user_id")
    submitting.add_argument("--metadata", type=_key_and_value, action="append", default=[], metavar="KEY=VALUE")
    submitting.set_defaults(command=_submit)
    fetching = commands.add_parser("fetch", help="print a user's joined documents from Redis, if they are there")
    fetching.add_argument("user_id")
    fetching.set_defaults(command=_fetch)
    return parser


if __name__ == "__main__":
    sys.exit(main())
