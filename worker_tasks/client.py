"""A command-line client for user-orders joins: ``python -m worker_tasks.client submit u1 --metadata reason=audit``."""

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
    """Runs one command. Returns its exit status: 0 for success, 1 for an error.

    Raises:
        SystemExit: argparse does not understand the arguments (status 2).
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except (DovetailError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1


def _submit(options: argparse.Namespace) -> int:
    if error := user_orders.user_id_error(options.user_id):
        raise InvalidInput({"user_id": error})
    print(submit(join_users_orders, options.user_id, metadata=dict(options.metadata)))
    return 0


def _fetch(options: argparse.Namespace) -> int:
    with named_driver_errors():
        result = connections().results.get(user_orders.result_key(options.user_id))
    if result is None:
        print(f"There is no result for {options.user_id}: never joined, expired, or lost.", file=sys.stderr)
        return 1
    print(bytes_to_str(result))
    return 0


def _key_and_value(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m worker_tasks.client", description=__doc__)
    commands = parser.add_subparsers(required=True)
    submit_parser = commands.add_parser("submit", help="ask for a user's orders; prints the task id without waiting")
    submit_parser.add_argument("user_id")
    submit_parser.add_argument("--metadata", type=_key_and_value, action="append", default=[], metavar="KEY=VALUE")
    submit_parser.set_defaults(command=_submit)
    fetch_parser = commands.add_parser("fetch", help="print a user's joined documents from Redis, if they are there")
    fetch_parser.add_argument("user_id")
    fetch_parser.set_defaults(command=_fetch)
    return parser


if __name__ == "__main__":
    sys.exit(main())
