"""Checks a join before it runs: what will come of it and what it will cost, from bounded samples; kept for the task."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from bson import json_util
from kombu.utils.encoding import ensure_bytes

from worker_tasks.infra.connections import Document, connections, within
from worker_tasks.infra.errors import TooExpensive, TookTooLong
from worker_tasks.infra.settings import settings
from worker_tasks.infra.sources import default_source
from worker_tasks.joins.plan.catalog import Catalog, CollectionStats
from worker_tasks.joins.plan.pipeline import compile_pipeline
from worker_tasks.joins.plan.stages import match_stages
from worker_tasks.joins.plan.strategy import Strategy, choose_strategy
from worker_tasks.joins.preflight import findings
from worker_tasks.joins.preflight.findings import Finding, Level
from worker_tasks.joins.preflight.probing import JoinStats, Probe
from worker_tasks.joins.preflight.sampling import mean_size, sample_collection
from worker_tasks.joins.spec import filters, mongosh
from worker_tasks.joins.spec.spec import Join, JoinSpec
from worker_tasks.records import live

#: Seconds that what was found is remembered, so that a task that is submitted then can keep it.
KEPT_SECONDS = 600
#: Seconds that looking for what each condition of a filter keeps may take, all of them together.
COUNTING_SECONDS = 1.0
#: Bytes of joined documents that a worker encodes and writes in a second: benchmarks/bulk.py.
WRITTEN_PER_SECOND = 70e6
#: Seconds that the shortest join takes from press to result.
LEAST_SECONDS = 0.2
COMMENT = "dovetail check"
MIB = 2**20


@dataclass(frozen=True)
class Estimate:
    """What a join is expected to bring. ``rates`` says of each join how many of the rows before it find a match.

    None stands for what could not be found out in time.
    """

    rows: int | None
    bytes: int | None
    seconds: float | None
    rates: list[float | None]


@dataclass(frozen=True)
class Checks:
    """What was found. ``preview`` holds joined rows as relaxed Extended JSON, of a sample where ``is_sample``.

    ``pipeline`` is what will be sent, for MongoDB's shell; ``seconds`` is what the checks took.
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
    """Looks at the collections within seconds; nothing is recorded.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    started = time.monotonic()
    catalog = Catalog(spec, default_source().database(spec.database), COMMENT)
    found: list[Finding] = []
    strategy = _strategy(spec, catalog, found)
    found += _of_left_filter(spec, catalog)
    if spec.match:
        look = sample_collection(spec.database, spec.from_)
        found += findings.filter_findings(filters.field_paths(spec.match), look, spec.from_, None)
    probe = Probe(spec, catalog, COMMENT)
    left_fields = {name for document in probe.sample for name in document}
    joins: list[JoinStats] = []
    for number, join in enumerate(spec.joins):
        joins.append(probe.facts(number))
        if probe.sample:
            found += findings.join_findings(joins[-1], spec.from_)
        found += findings.name_findings(join, number, left_fields)
        found += findings.kept_field_findings(join, number, spec.fields_)
        found += findings.filter_findings(filters.field_paths(join.match), joins[-1].other, join.from_, number)
        if strategy is not None:
            step, can_be_indexed = strategy.steps[number], not catalog.stats(join.from_).is_view
            way = findings.method_finding(join, number, step, _served_by(join, catalog), can_be_indexed=can_be_indexed)
            found.append(way)
        left_fields |= {join.as_} if join.as_ else set()
    expected = _expected(spec, catalog, joins, strategy, probe.sample)
    found += _of_limits(expected)
    preview, is_sample = probe.preview()
    checks = Checks(
        findings=sorted(found, key=lambda finding: -list(Level).index(finding.level)),
        expected=expected,
        preview=[json.loads(json_util.dumps(row, json_options=json_util.RELAXED_JSON_OPTIONS)) for row in preview],
        is_sample=is_sample,
        pipeline=_shell(spec, strategy or probe.lookups(spec)),
        seconds=round(time.monotonic() - started, 3),
    )
    live.remember(_key(spec.fingerprint), json.dumps(checks.to_document()), KEPT_SECONDS)
    return checks


def cached_checks(fingerprint: str) -> dict[str, Any] | None:
    """What was found of this join within the last minutes, as a document; None where it was not looked at.

    Raises:
        redis.exceptions.RedisError: Redis does not answer.
    """
    text = connections().results.get(_key(fingerprint))
    return None if text is None else json.loads(ensure_bytes(text))


def verdict(document: dict[str, Any]) -> dict[str, Any]:
    """Of what was found what is kept with the task: all but the rows of the preview."""
    return {name: document[name] for name in ("findings", "expected", "seconds")}


def explain_empty(spec: JoinSpec) -> list[str]:
    """Why a join brings nothing, in sentences, the likeliest first.

    Raises:
        pymongo.errors.PyMongoError, redis.exceptions.RedisError: a server does not answer.
    """
    telling = (Level.STOP, Level.WARNING)
    return [finding.text for finding in check_join(spec).findings if finding.level in telling]


def _shell(spec: JoinSpec, strategy: Strategy) -> str:
    aggregation = compile_pipeline(spec, strategy)
    pipeline = match_stages(aggregation.filter) + aggregation.pipeline
    return mongosh.aggregate(spec.database, aggregation.collection, pipeline)


def _key(fingerprint: str) -> str:
    return f"join_check:{fingerprint}"


def _strategy(spec: JoinSpec, catalog: Catalog, found: list[Finding]) -> Strategy | None:
    try:
        return choose_strategy(spec, catalog, settings().join_seconds)
    except TooExpensive as refusal:
        commands = [findings.create_index(join) for join in spec.joins if _served_by(join, catalog) is None]
        found.append(Finding(Level.STOP, str(refusal), command="\n".join(commands)))
        return None


def _served_by(join: Join, catalog: Catalog) -> str | None:
    paths = [pair.foreign for pair in join.on]
    known: CollectionStats = catalog.stats(join.from_)
    index = next((index for index in known.indexes if index.serves(paths)), None)
    return None if index is None else f"{join.from_}({', '.join(index.fields)})"


def _of_left_filter(spec: JoinSpec, catalog: Catalog) -> Iterator[Finding]:
    everything = catalog.stats(spec.from_).count
    if everything == 0:
        yield Finding(Level.STOP, f"{spec.from_} is empty.")
    elif spec.match:
        kept_ = catalog.left_count
        level = Level.STOP if kept_ == 0 else Level.GOOD
        yield Finding(level, f"Your filter keeps {kept_:,} of {everything:,} {spec.from_}.")
        if kept_ == 0:
            yield from _of_conditions(spec)


def _of_conditions(spec: JoinSpec) -> list[Finding]:
    """Which condition of the filter keeps nothing even alone, as far as that is found out in time."""
    found: list[Finding] = []
    if len(spec.match) == 1:
        return found
    source = default_source().database(spec.database)[spec.from_]
    with suppress(TookTooLong), within(COUNTING_SECONDS):
        for field, condition in spec.match.items():
            if source.find_one(filters.to_query({field: condition}), {"_id": 1}, comment=COMMENT) is None:
                stated = json.dumps(condition, ensure_ascii=False)[:100]
                found.append(Finding(Level.STOP, f"The condition on {field} alone keeps nothing: {stated}."))
    return found


def _expected(
    spec: JoinSpec, catalog: Catalog, joins: list[JoinStats], strategy: Strategy | None, sample: list[Document]
) -> Estimate:
    rates = [None if facts.rate is None else round(facts.rate, 4) for facts in joins]
    left_rows = rows = float(catalog.left_count)
    size = mean_size([_kept_of(document, spec.fields_) for document in sample])
    for facts in joins:
        if facts.rate is None and rows:
            return Estimate(None, None, None, rates)
        factor, added = _growth(facts)
        if spec.fields_ is None or any(field.partition(".")[0] == facts.join.as_ for field in spec.fields_):
            size += added / max(factor, 1e-9) * facts.other.size * _share_of_fields(facts)
        rows *= factor
        if facts.join.kind_traits.keeps_other:
            # Those of the other side that nothing of the left one matches.
            matched = facts.found * max(1.0, left_rows / max(1, facts.rows))
            rows += max(0.0, catalog.filtered_count(facts.join.from_, facts.join.match) - matched)
    if spec.limit is not None:
        rows = min(rows, spec.limit)
    total = rows * size
    seconds = None if strategy is None else strategy.seconds + total / WRITTEN_PER_SECOND + LEAST_SECONDS
    return Estimate(round(rows), round(total), None if seconds is None else round(seconds, 2), rates)


def _growth(facts: JoinStats) -> tuple[float, float]:
    """Rows out of one row, and documents that are brought into them, on average."""
    kind, shape, rate = facts.join.kind_traits, facts.join.shape_traits, facts.rate or 0.0
    if kind.excludes_matches:
        return 1 - rate, 0.0
    if not kind.embeds:
        return rate, 0.0
    if shape.repeats_rows:
        return facts.kept + (1 - rate if kind.keeps_left else 0.0), facts.kept
    documents = rate if shape.takes_one else facts.kept
    return 1.0 if kind.keeps_left else rate, documents if shape.holds_documents else 0.0


def _kept_of(document: Document, fields: list[str] | None) -> Document:
    if fields is None:
        return document
    heads = {field.partition(".")[0] for field in fields}
    return {name: value for name, value in document.items() if name in heads}


def _share_of_fields(facts: JoinStats) -> float:
    """About how much of a document of the other side is kept."""
    if facts.join.fields_ is None:
        return 1.0
    top = sum(1 for field in facts.other.fields if "." not in field.path)
    return min(1.0, len(facts.join.fields_) / max(1, top))


def _of_limits(expected: Estimate) -> Iterator[Finding]:
    limits = settings()
    if expected.rows and expected.rows > limits.result_max_rows:
        text = f"About {expected.rows:,} rows are more than the {limits.result_max_rows:,} that a result may have."
        yield Finding(Level.WARNING, f"{text} Filter either side, or set a limit.")
    if expected.bytes and expected.bytes > limits.result_max_mib * MIB:
        size = (
            f"About {expected.bytes / MIB:,.0f} MiB are more than the {limits.result_max_mib:,} that a result may have."
        )
        yield Finding(Level.WARNING, f"{size} Filter either side, keep fewer fields, or set a limit.")
