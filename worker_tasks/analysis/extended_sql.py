"""SQL templates for objects of Extended JSON: whether one stands for a value of a type, and its value. Pure: no I/O.

``{0}`` is the JSON of an object with one key, the key of the type.
"""

from worker_tasks.analysis import extended_values

#: The range of DuckDB's timestamps, in milliseconds before and after 1970.
MAX_INSTANT = 9_000_000_000_000_000


def _content(wrapper: str) -> str:
    """A template for the content of an object with this key as text; NULL if it is no such object."""
    return f"({{0}}->>'$.\"{wrapper}\"')"


def _is_text(wrapper: str, pattern: str = "") -> str:
    """A template for the condition that the content of an object with this key is a text that matches a pattern."""
    is_text = f"json_type({{0}}, '$.\"{wrapper}\"') = 'VARCHAR'"
    if not pattern:
        return is_text
    return f"({is_text} AND regexp_full_match({_content(wrapper)}, '{_escaped(pattern)}'))"


def _escaped(pattern: str) -> str:
    """A regular expression in a template, whose braces are no places to fill in."""
    return pattern.replace("{", "{{").replace("}", "}}")


_DATE_TYPE = "json_type({0}, '$.\"$date\"')"
_DATE_KEYS = "json_keys({0}, '$.\"$date\"')"
# Milliseconds since 1970, as the canonical form writes them, or as a number like older versions of the format.
_MILLISECONDS = (
    f"CASE {_DATE_TYPE} WHEN 'OBJECT' THEN TRY_CAST(({{0}}->>'$.\"$date\".\"$numberLong\"') AS BIGINT) "
    f"WHEN 'VARCHAR' THEN NULL ELSE TRY_CAST({_content('$date')} AS BIGINT) END"
)
_TIMESTAMP = f"TRY_CAST({_content('$date')} AS TIMESTAMPTZ) AT TIME ZONE 'UTC'"
IS_INSTANT = (
    f"CASE {_DATE_TYPE} WHEN 'VARCHAR' THEN {_is_text('$date', extended_values.INSTANT)} "
    f"AND TRY_CAST({_content('$date')} AS TIMESTAMPTZ) IS NOT NULL "
    f"WHEN 'OBJECT' THEN {_DATE_KEYS} = ['$numberLong'] "
    "AND json_type({0}, '$.\"$date\".\"$numberLong\"') = 'VARCHAR' "
    f"AND abs(({_MILLISECONDS})::HUGEINT) < {MAX_INSTANT} "
    f"ELSE {_DATE_TYPE} IN ('BIGINT', 'UBIGINT') AND abs(({_MILLISECONDS})::HUGEINT) < {MAX_INSTANT} END"
)
_BASE64 = '({0}->>\'$."$binary"."base64"\')'
_SUBTYPE = '({0}->>\'$."$binary"."subType"\')'
IS_BINARY_UUID = (
    "(json_keys({0}, '$.\"$binary\"') IN (['base64', 'subType'], ['subType', 'base64']) "
    f"AND {_SUBTYPE} IN ('3', '03', '4', '04') AND json_type({{0}}, '$.\"$binary\".\"subType\"') = 'VARCHAR' "
    f"AND regexp_full_match({_BASE64}, '{_escaped(extended_values.UUID_BASE64)}'))"
)
_DIGITS = f"lower(hex(TRY(from_base64({_BASE64}))))"
_UUID_GROUPS = "'^(.{{8}})(.{{4}})(.{{4}})(.{{4}})(.{{12}})$', '\\1-\\2-\\3-\\4-\\5'"
_UUID_TEXT = f"CASE WHEN {_SUBTYPE} IN ('4', '04') THEN regexp_replace({_DIGITS}, {_UUID_GROUPS}) ELSE {_DIGITS} END"
OLD_UUID = "json_object('$binary', json_object('base64', to_base64(unhex({0})), 'subType', '03'))"

_LONG = f"TRY_CAST({_content('$numberLong')} AS BIGINT)"
IS_LONG = f"({_is_text('$numberLong', extended_values.INTEGER)} AND {_LONG} IS NOT NULL)"
IS_DOUBLE = _is_text("$numberDouble", extended_values.NUMBER)
IS_DECIMAL = _is_text("$numberDecimal", extended_values.NUMBER)
IS_OID = _is_text("$oid", extended_values.OID)
IS_UUID = _is_text("$uuid", extended_values.UUID)
IS_SYMBOL = _is_text("$symbol")
INSTANT = f"coalesce({_TIMESTAMP}, epoch_ms({_MILLISECONDS}))"
ID = f"coalesce({_content('$oid')}, {_content('$uuid')}, {_UUID_TEXT})"
