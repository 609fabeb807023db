"""Checks a join before it runs, from bounded samples: likely mistakes, and the expected result and cost."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import TooExpensive, TookTooLong
from worker_tasks.infra.settings import settings
from worker_tasks.infra.sources import find_collection
from worker_tasks.joins.plan.catalog import Catalog
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.shell_commands import lookup_command, read_commands
from worker_tasks.joins.plan.strategy import JoinMethod, Strategy, allows_lookup, choose_strategy
from worker_tasks.joins.preflight import findings
from worker_tasks.joins.preflight.estimates import Estimate, estimate, repeated
from worker_tasks.joins.preflight.findings import Finding, Level
from worker_tasks.joins.preflight.join_stats import JoinStats
from worker_tasks.joins.preflight.lookups import lookups
from worker_tasks.joins.preflight.method_findings import method_finding, server_finding
from worker_tasks.joins.preflight.probing import Probe
from worker_tasks.joins.preflight.sampling import sample_collection
from worker_tasks.joins.spec import filters
from worker_tasks.joins.spec.extended_json import finite, to_line
from worker_tasks.joins.spec.sides import Side
from worker_tasks.joins.spec.spec import Join, JoinSpec
from worker_tasks.records import live

#: Seconds that checks stay in Redis, for a task submitted in the meantime.
CACHE_SECONDS = 600
#: Time limit in seconds for trying all conditions of a filter one by one.
CONDITION_SECONDS = 1.0
COMMENT = "dovetail check"
MIB = 2**20


@dataclass(frozen=True)
class Checks:
    """The results of all checks.

    ``preview`` holds joined rows as relaxed Extended JSON; they come from a sample if ``is_sample``. ``pipeline`` is
    the aggregation, or those that read each side, for MongoDB's shell. ``seconds`` is the duration of the checks.
    """

    findings: list[Finding]
    expected: Estimate
    preview: list[dict[str, Any]]
    is_sample: bool
    pipeline: str
    seconds: float

    def to_document(self) -> dict[str, Any]:
        return asdict(self) | {"findings": [finding.to_document() for finding in self.findings]}


def check_join(spec: JoinSpec) -> Checks:
    """Checks a join within seconds. Writes only to the cache of checks.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    started = time.monotonic()
    catalog = Catalog(spec, comment=COMMENT)
    strategy, found = _choose_strategy(spec, catalog)
    found += _left_findings(spec, catalog)
    probe = Probe(spec, catalog, COMMENT)
    left_rows = probe.left_rows
    joins = probe.joins()
    found += _join_findings(spec, joins, probe.sample)
    found += _whole_findings(spec, catalog, strategy, joins, probe.repetition)
    expected = estimate(spec, catalog, joins, strategy, left_rows, probe.expansion)
    found += _limit_findings(expected)
    preview, is_sample = probe.preview()
    checks = Checks(
        findings=sorted(found, key=lambda finding: -list(Level).index(finding.level)),
        expected=expected,
        preview=[json.loads(to_line(finite(row))) for row in preview],
        is_sample=is_sample,
        pipeline=_shell_commands(spec, strategy),
        seconds=round(time.monotonic() - started, 3),
    )
    live.remember(_key(spec.fingerprint), json.dumps(checks.to_document()), CACHE_SECONDS)
    return checks


def cached_checks(fingerprint: str) -> dict[str, Any] | None:
    """The cached checks of this join as a document, or None if there are none from the last few minutes.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(_key(fingerprint))
    return None if text is None else json.loads(ensure_bytes(text))


def verdict(document: dict[str, Any]) -> dict[str, Any]:
    """The part of the checks that is stored with a task: everything except the rows of the preview."""
    return {name: document[name] for name in ("findings", "expected", "seconds")}


def explain_empty(spec: JoinSpec) -> list[str]:
    """Likely reasons for an empty result, as sentences, the likeliest first.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    return [finding.text for finding in check_join(spec).findings if finding.level in {Level.STOP, Level.WARNING}]


def _shell_commands(spec: JoinSpec, strategy: Strategy | None) -> str:
    """The whole join as one aggregation if there is one, otherwise the commands that read its sides."""
    if not allows_lookup(spec):
        return read_commands(spec)
    is_lookup = strategy is not None and strategy.method is JoinMethod.LOOKUP
    return lookup_command(spec.left, compile_pipeline(spec, strategy if strategy and is_lookup else lookups(spec)))


def _key(fingerprint: str) -> str:
    return f"join_check:{fingerprint}"


def _choose_strategy(spec: JoinSpec, catalog: Catalog) -> tuple[Strategy | None, list[Finding]]:
    """The strategy of the join, or None and the reason for refusing it."""
    try:
        return choose_strategy(spec, catalog, settings().join_seconds), []
    except TooExpensive as refusal:
        unserved = [join for join in spec.joins if _serving_index(join, spec.side(join), catalog) is None]
        commands = [findings.create_index(join) for join in unserved]
        return None, [Finding(Level.STOP, str(refusal), command="\n".join(commands))]


def _serving_index(join: Join, side: Side, catalog: Catalog) -> str | None:
    """The index that serves the keys of this join, such as ``orders(userId)``."""
    index = catalog.stats(side).index_for([pair.foreign for pair in join.on])
    return None if index is None else f"{join.from_}({', '.join(index.fields)})"


def _left_findings(spec: JoinSpec, catalog: Catalog) -> Iterator[Finding]:
    """Findings about the left collection and its filter."""
    total = catalog.stats(spec.left).count
    if total == 0:
        yield Finding(Level.STOP, f"{spec.from_} is empty.")
    elif spec.match:
        count = catalog.left_count
        level = Level.STOP if count == 0 else Level.GOOD
        yield Finding(level, f"Your filter keeps {count:,} of {total:,} {spec.from_}.")
        if count == 0:
            yield from _condition_findings(spec)
    if spec.match:
        sample = sample_collection(spec.left)
        yield from findings.filter_findings(filters.field_paths(spec.match), sample, spec.from_, None)


def _condition_findings(spec: JoinSpec) -> list[Finding]:
    """The conditions of the left filter that keep nothing even alone, as far as time allows."""
    found: list[Finding] = []
    if len(spec.match) == 1:
        return found
    source = find_collection(*spec.left)
    with suppress(TookTooLong), within(CONDITION_SECONDS):
        for field, condition in spec.match.items():
            if source.find_one(filters.to_query({field: condition}), {"_id": 1}, comment=COMMENT) is None:
                text = json.dumps(condition, ensure_ascii=False)[:100]
                found.append(Finding(Level.STOP, f"The condition on {field} alone keeps nothing: {text}."))
    return found


def _join_findings(spec: JoinSpec, joins: list[JoinStats], sample: list[Document]) -> Iterator[Finding]:
    row_fields = {name for document in sample for name in document}
    for number, stats in enumerate(joins):
        join = stats.join
        if sample:
            yield from findings.join_findings(stats, spec.from_)
        if join.into is None:
            yield from findings.name_findings(join, number, row_fields)
        yield from findings.kept_field_findings(join, number, spec.fields_)
        yield from findings.filter_findings(filters.field_paths(join.match), stats.other, join.from_, number)
        row_fields |= {join.as_} if join.as_ and join.into is None else set()


def _whole_findings(
    spec: JoinSpec, catalog: Catalog, strategy: Strategy | None, joins: list[JoinStats], repetition: float
) -> Iterator[Finding]:
    """Findings about all joins together."""
    if (servers := server_finding(spec)) is not None:
        yield servers
    factor, cause = repeated(joins, repetition)
    if (repeats := findings.repetition_finding(factor, spec.from_, cause)) is not None:
        yield repeats
    if strategy is not None and spec.joins:
        indexes = [_serving_index(join, spec.side(join), catalog) for join in spec.joins]
        indexable = [
            join
            for join, index in zip(spec.joins, indexes, strict=True)
            if index is None and not catalog.stats(spec.side(join)).is_view
        ]
        yield method_finding(spec, strategy, indexes, indexable)


def _limit_findings(expected: Estimate) -> Iterator[Finding]:
    """Warnings about a result that would exceed the limits in the settings."""
    limits = settings()
    if expected.rows and expected.rows > limits.result_max_rows:
        text = f"About {expected.rows:,} rows are more than the {limits.result_max_rows:,} that a result may have."
        yield Finding(Level.WARNING, f"{text} Filter either side, or set a limit.")
    if expected.bytes and expected.bytes > limits.result_max_mib * MIB:
        mib = f"{expected.bytes / MIB:,.0f} MiB"
        text = f"About {mib} are more than the {limits.result_max_mib:,} that a result may have."
        yield Finding(Level.WARNING, f"{text} Filter either side, keep fewer fields, or set a limit.")
