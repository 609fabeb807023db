"""Commands for MongoDB's shell that show what a join reads. Pure."""

from worker_tasks.joins.plan.layout import layout_of
from worker_tasks.joins.plan.stages import Stage
from worker_tasks.joins.spec import mongosh
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import JoinSpec


def lookup_command(left: Side, pipeline: list[Stage]) -> str:
    """The command that runs a whole join on its left collection."""
    return mongosh.aggregate(left.database, left.collection, pipeline)


def read_commands(spec: JoinSpec) -> str:
    """The commands that read each side of a join, one after the other."""
    layout = layout_of(spec)
    sides = [layout.rows.left, *(join.other for join in layout.others)]
    commands = [mongosh.aggregate(side.side.database, side.side.collection, side.pipeline()) for side in sides]
    return "\n".join(dict.fromkeys(commands))
