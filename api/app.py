"""The application: every endpoint under `/api/v1`, and how requests that fail are answered.

Put together by `create_app`; holds no endpoint of its own. Whoever serves it hands in the services.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import lru_cache
from inspect import signature
from typing import Any, get_args

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.params import Depends, Query
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response

from api import calendar, demand, hosts, metrics, policies, quotes, reservations, status, users
from api.access import Access
from api.bodies import BodyLimits
from api.instants import shower
from api.problems import FieldProblem, Problem, invalid, response
from api.services import MOST_AT_ONCE, Services, installed_version
from api.writing import PREFIX, BeingPlanned

_ROUTERS = (status, metrics, reservations, quotes, calendar, hosts, policies, demand, users)
_LONGEST_VALUE = 80
_MOST_ERRORS = 20


def create_app(services: Services) -> FastAPI:
    """Return the application for one installation."""
    app = FastAPI(
        title="Nightshift",
        summary="One GPU server: many tenants by day, one supercomputer by night.",
        version=installed_version(),
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_served,
    )
    app.state.services = services
    for module in _ROUTERS:
        app.include_router(module.router, prefix=PREFIX, dependencies=[Depends(refuse_unknown_queries)])
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http)
    app.add_exception_handler(BeingPlanned, _answer_being_planned)
    # The last one added is the outermost.
    app.add_middleware(BodyLimits)
    app.add_middleware(Access, services=services)
    return app


@asynccontextmanager
async def _served(_: FastAPI) -> AsyncIterator[None]:
    """Set how many requests are worked on at once; it is the loop's that serves, and known only then."""
    current_default_thread_limiter().total_tokens = MOST_AT_ONCE
    yield


@lru_cache(maxsize=256)
def known_queries(endpoint: Callable[..., object]) -> frozenset[str]:
    """Return the names of the query parameters that an endpoint takes."""
    return frozenset(
        said.alias or parameter.name
        for parameter in signature(endpoint).parameters.values()
        for said in get_args(parameter.annotation)[1:]
        if isinstance(said, Query)
    )


async def refuse_unknown_queries(request: Request) -> None:
    """Refuse query parameters that mean nothing: who misspells one would wait for what never comes."""
    if not request.query_params:
        return
    known = known_queries(request.scope["endpoint"])
    strange = [name for name in request.query_params if name not in known]
    if strange:
        problem = f"it means nothing here; known: {', '.join(sorted(known)) or 'none'}"
        raise invalid(*(FieldProblem(field=_cut(name), problem=problem) for name in strange[:_MOST_ERRORS]))
    twice = [name for name in known if len(request.query_params.getlist(name)) > 1]
    if twice:
        raise invalid(FieldProblem(field=twice[0], problem="it is there twice; give it once"))


async def _answer_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return _respond(request, invalid(*_field_problems(error.errors())))


def _field_problems(errors: Iterable[Mapping[str, Any]]) -> Sequence[FieldProblem]:
    found = [FieldProblem(field=_field(error["loc"]), problem=_problem(error), value=_value(error)) for error in errors]
    return found[:_MOST_ERRORS] or [FieldProblem(field="body", problem="it is not acceptable")]


def _field(location: Sequence[str | int]) -> str:
    """Name a field by where it is: `run_s`, `Idempotency-Key`; `body` for the whole."""
    names = [str(part) for part in location[1:]] or [str(location[0])]
    return _cut(".".join(names))


def _problem(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "missing":
            return "it is missing"
        case "extra_forbidden":
            return "there is no such field"
        case "int_type":
            return "give a whole number"
        case "string_type":
            return "give a text"
        case "bool_parsing":
            return "use true or false"
        case "int_parsing" | "int_parsing_size":
            return "give a whole number"
        case "less_than_equal":
            return f"give at most {error['ctx']['le']}"
        case "greater_than_equal":
            return f"give at least {error['ctx']['ge']}"
        case "string_too_long":
            return f"give at most {error['ctx']['max_length']} characters"
        case "string_too_short":
            return "it is empty"
        case "string_pattern_mismatch":
            return f"it has to be of the form {error['ctx']['pattern']}"
        case "literal_error" | "enum":
            return f"use {error['ctx']['expected']}"
        case "model_attributes_type" | "model_type" | "dict_type":
            return "give a JSON object"
        case _:
            return " ".join(str(error["msg"]).split())


def _value(error: Mapping[str, Any]) -> str | None:
    seen = error.get("input")
    if error["type"] == "missing" or seen is None or isinstance(seen, dict | list) or "ssh_key" in error["loc"]:
        # A key may be a private one, sent by mistake: it is not sent around any further.
        return None
    return _cut(repr(seen))


def _cut(text: str) -> str:
    kept = "".join(character if character.isprintable() else "?" for character in text[:_LONGEST_VALUE])
    return kept if len(text) <= _LONGEST_VALUE else f"{kept}…"


async def _answer_http(request: Request, error: Exception) -> Response:
    """Answer what the framework itself refuses: an unknown path, a method that a path does not have."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    match error.status_code:
        case 404:
            problem = Problem(404, "path.unknown", f"there is nothing here; see {PREFIX}/openapi.json", headers=headers)
        case 405:
            allowed = ", ".join(_allowed(request)) or headers.get("Allow", "")
            if allowed:
                headers["Allow"] = allowed
            message = f"{_cut(request.method)} is not possible here; use {allowed}"
            problem = Problem(405, "method.not_allowed", message, headers=headers)
        case 400:
            problem = Problem(400, "body.unreadable", str(error.detail))
        case _:
            problem = Problem(error.status_code, "request.invalid", str(error.detail), headers=headers)
    return _respond(request, problem)


def _allowed(request: Request) -> list[str]:
    """Return the methods that a path has; several endpoints may share it."""
    path = request.url.path.removeprefix(PREFIX)
    routes = (route for module in _ROUTERS for route in module.router.routes if isinstance(route, APIRoute))
    return sorted({method for route in routes if route.path_regex.fullmatch(path) for method in route.methods or ()})


async def _answer_being_planned(request: Request, error: Exception) -> Response:
    assert isinstance(error, BeingPlanned)
    return error.response()


def _respond(request: Request, problem: Problem) -> Response:
    services: Services = request.app.state.services
    return response(problem, shower(services.zone()))
