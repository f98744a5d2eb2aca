"""The JSON Schema of policy files, for editors: generated, so that it says what the loader reads.

The loader is the judge. The schema takes everything that the loader takes, and refuses unknown keys, wrong types and
wrong forms; what has to fit together (names, times, sizes) it cannot say. `policy.schema.json` is this, written down.
"""

import json
from typing import Any

from policies.loading import DEFAULT_KEYS, HOLIDAY_KEYS, LAYOUT_KEYS, MOST_SLACK_PERCENT, QUEUE_KEYS, TOP_KEYS
from policies.loading_entries import MAINTENANCE_KEYS, MOST_COPIES, MOST_GPUS, RESERVE_KEYS, WINDOW_KEYS
from policies.loading_limits import (
    GROUP_KEYS,
    HOURS_KEYS,
    MOST_OF_A_LIMIT,
    OVERRIDE_KEYS,
    TOP_LIMIT_KEYS,
    UNUSED_KEYS,
    USER_KEYS,
)
from policies.times import OnHolidays
from scheduler.core.requests import AtBoundary
from scheduler.core.rules import OrderKind, UnusedAction

Schema = dict[str, Any]

_WORDS: dict[str, str] = {
    "version": "The form of this file: 1.",
    "zone": "The zone of every wall-clock time in this policy, by its IANA name.",
    "outside": "The layout that holds whenever no window does.",
    "layouts": "What may run when: VM sizes in GPUs, and queues.",
    "queues": "The queues, by name.",
    "images": "The images that guests may have; the first is the default.",
    "defaults": "What holds unless an entry says otherwise.",
    "groups": "Who is counted together in limits.",
    "limits": "For each owner, for groups and for users.",
    "overrides": "Limits that hold instead within some dates.",
    "holidays": "Which days are holidays.",
    "windows": "When which hosts have another layout.",
    "maintenance": "When nothing runs on which hosts, whatever other windows say.",
    "reserve": "Reservations that the policy itself asks for.",
    "unused": "What becomes of GPUs that are reserved and not used.",
}
_TEXT: Schema = {"type": "string"}
_NAME: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"}
_OWNER: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"}
_HOST: Schema = {"type": "string", "pattern": r"^[A-Za-z0-9._*?-]{1,64}$"}
_DURATION: Schema = {
    "type": "string",
    "pattern": r"^(?=.)([0-9]{1,5}d)?([0-9]{1,5}h)?([0-9]{1,6}m)?([0-9]{1,7}s)?$",
    "examples": ["90m", "12h", "7d", "1h30m"],
}
_SIZE: Schema = {"type": "string", "pattern": r"^[0-9]{1,7} ?(GiB|TiB)$", "examples": ["100GiB"]}
_CRON: Schema = {"type": "string", "pattern": r"^\s*\S+(\s+\S+){4}\s*$", "examples": ["0 20 * * mon-fri"]}
_DATE: Schema = {
    "type": "string",
    "pattern": r"^\s*[0-9]{4}-[0-9]{2}-[0-9]{2}(\s*\.\.\s*[0-9]{4}-[0-9]{2}-[0-9]{2})?\s*$",
    "examples": ["2026-12-24", "2026-12-24..2027-01-01"],
}
_LOCAL: Schema = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}$"}
_MOMENT: Schema = {"type": "string", "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2})?$"}
_TRUTH: Schema = {"type": "boolean"}


def policy_schema() -> Schema:
    """Return the schema of one policy file; of several, each may lack what another one says."""
    top: dict[str, Schema] = {
        "version": {"const": 1},
        "zone": _TEXT,
        "outside": _TEXT,
        "layouts": _named(_group(LAYOUT_KEYS, {"sizes": _list(_gpus()), "queues": _list(_TEXT)}), _NAME),
        "queues": _named(_group(QUEUE_KEYS, _QUEUE, may_be_empty=True), _NAME),
        "images": {**_list(_NAME), "minItems": 1},
        "defaults": _group(DEFAULT_KEYS, _DEFAULT),
        "groups": _named(_group(("members",), {"members": _list(_OWNER)}), _NAME),
        "limits": _LIMITS,
        "overrides": _list(
            _group(OVERRIDE_KEYS, {"name": _NAME, "from": _MOMENT, "until": _MOMENT, "limits": _LIMITS})
        ),
        "holidays": _group(HOLIDAY_KEYS, _HOLIDAYS),
        "windows": _list(_group(WINDOW_KEYS, {**_ENTRY, **_WINDOW})),
        "maintenance": _list(_group(MAINTENANCE_KEYS, {**_ENTRY, **_WINDOW, "from": _MOMENT, "until": _MOMENT})),
        "reserve": _list(_group(RESERVE_KEYS, {**_ENTRY, **_RESERVE})),
        "unused": _group(UNUSED_KEYS, _UNUSED),
    }
    # Beside a reference a description would not be read.
    described = {
        key: schema if "$ref" in schema else {"description": _WORDS[key], **schema} for key, schema in top.items()
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Nightshift policy, version 1",
        **_group(TOP_KEYS, described),
        "required": ["version"],
        "definitions": _definitions(),
    }


def schema_text() -> str:
    """Return the schema as it is written down."""
    return json.dumps(policy_schema(), indent=2) + "\n"


def _group(keys: tuple[str, ...], properties: dict[str, Schema], *, may_be_empty: bool = False) -> Schema:
    """Return a group with exactly these keys; a key without a schema is a mistake of ours."""
    return {
        "type": ["object", "null"] if may_be_empty else "object",
        "properties": {key: properties[key] for key in keys},
        "additionalProperties": False,
    }


def _named(schema: Schema, name: Schema) -> Schema:
    return {
        "type": "object",
        "minProperties": 1,
        "patternProperties": {name["pattern"]: schema},
        "additionalProperties": False,
    }


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _choice(*choices: str) -> Schema:
    return {"enum": [str(choice) for choice in choices]}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _gpus() -> Schema:
    return _whole(1, MOST_GPUS)


def _definitions() -> dict[str, Schema]:
    """Return what stands in several places."""
    inside = {**_LIMIT, "by_hour": _list(_ref("by_hour")), "each": _ref("each")}
    groups = _named(_group(GROUP_KEYS, inside, may_be_empty=True), _NAME)
    users = _named(_group(USER_KEYS, inside, may_be_empty=True), _OWNER)
    limits = _group(TOP_LIMIT_KEYS, {**inside, "groups": groups, "users": users})
    return {
        "limits": {"description": _WORDS["limits"], **limits},
        "each": {"description": "For each member of a group by himself.", **_group(USER_KEYS, inside)},
        "by_hour": _group(HOURS_KEYS, {**_LIMIT, "hours": _HOURS, "days": _TEXT}),
    }


def _ref(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


_LIMITS = _ref("limits")
_HOURS: Schema = {
    "type": "string",
    "pattern": r"^[0-9]{2}:[0-9]{2} ?- ?[0-9]{2}:[0-9]{2}$",
    "examples": ["08:00-20:00"],
}
_BOUNDARY = _choice(*AtBoundary)
_QUEUE: dict[str, Schema] = {
    "at_boundary": _BOUNDARY,
    "default_disk": _SIZE,
    "scratch": _TRUTH,
    "order": _choice(*OrderKind),
    "age_cap": _DURATION,
    "half_life": _DURATION,
}
_DEFAULT: dict[str, Schema] = {
    "disk": _SIZE,
    "retention": _DURATION,
    "grace": _DURATION,
    "min_useful": _DURATION,
    "warnings": _list(_DURATION),
    "slack": _DURATION,
    "slack_percent": _whole(0, MOST_SLACK_PERCENT),
}
_HOLIDAYS: dict[str, Schema] = {
    "country": _TEXT,
    "region": _TEXT,
    "calendars": _list(_TEXT),
    "also": _list(_DATE),
    "except": _list(_DATE),
}
_ENTRY: dict[str, Schema] = {
    "name": _NAME,
    "at": _list(_LOCAL),
    "except": _list(_DATE),
    "holidays": _choice(*OnHolidays),
    "for": _DURATION,
}
_WINDOW: dict[str, Schema] = {
    "layout": _TEXT,
    "opens": _CRON,
    "hosts": _list(_HOST),
    "at_boundary": _list(_BOUNDARY),
    "warnings": _list(_DURATION),
    "grace": _DURATION,
    "decide": _DURATION,
    "only_if_queued": _TRUTH,
}
_RESERVE: dict[str, Schema] = {
    "cron": _CRON,
    "gpus": _gpus(),
    "count": _whole(1, MOST_COPIES),
    "queue": _TEXT,
    "owner": _OWNER,
    "image": _TEXT,
    "at_boundary": _BOUNDARY,
    "disk": _SIZE,
    "ahead": _DURATION,
}
_UNUSED: dict[str, Schema] = {
    "no_show_after": _DURATION,
    "idle_after": _DURATION,
    "idle_below_percent": _whole(1, 100),
    "then": _choice(*UnusedAction),
}
_LIMIT: dict[str, Schema] = {
    "open_reservations": _whole(1, MOST_OF_A_LIMIT),
    "gpus_at_once": _whole(1, MOST_OF_A_LIMIT),
    "longest": _DURATION,
    "gpu_hours_per_week": _whole(0, MOST_OF_A_LIMIT),
    "furthest_ahead": _DURATION,
    "far_ahead_gpu_hours": _whole(0, MOST_OF_A_LIMIT),
    "waiting": _whole(0, MOST_OF_A_LIMIT),
    "disk": _SIZE,
    "sizes": _list(_gpus()),
    "queues": _list(_TEXT),
    "images": _list(_TEXT),
}
