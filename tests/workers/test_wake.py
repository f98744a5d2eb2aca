"""Tests of waking through messages: nobody waits for Redis, nothing piles up, what is sent is what a worker takes."""

import base64
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scheduler.core.requests import HostId
from tests.running import RedisServer
from workers.app import EXPIRES_S, MOST_WAITING, PLAN_QUEUE, celery_app, host_queue
from workers.broker import BadRedisUrl, open_redis, ping, shown
from workers.tasks import add_tasks
from workers.wake import CeleryWake, NoWake

HOST = HostId("dgx2-a")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path)
    server.start()
    yield server
    server.go_on()
    server.kill()


@pytest.fixture
def wake(redis: RedisServer) -> Iterator[CeleryWake]:
    wake = CeleryWake(redis.url)
    yield wake
    wake.close()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="workers.wake")
    return caplog


def messages(redis: RedisServer, queue: str) -> list[dict[str, Any]]:
    client = open_redis(redis.url)
    found = client.lrange(queue, 0, -1)
    client.close()
    assert isinstance(found, list)
    return [json.loads(text) for text in found]


def test_a_message_says_look_now_and_expires(redis: RedisServer, wake: CeleryWake) -> None:
    wake.plan()
    wake.host(HOST)
    assert wake.flush(5)
    (plan,) = messages(redis, PLAN_QUEUE)
    (converge,) = messages(redis, host_queue(HOST))
    assert (plan["headers"]["task"], converge["headers"]["task"]) == ("plan", "converge")
    assert plan["headers"]["id"] != converge["headers"]["id"]
    for message in (plan, converge):
        assert message["headers"]["expires"] is not None
        assert message["headers"]["eta"] is None
        assert message["headers"]["ignore_result"]
    assert EXPIRES_S == 10


def test_a_message_that_is_sent_is_one_that_a_worker_takes(redis: RedisServer, wake: CeleryWake) -> None:
    looked: list[str] = []

    class Looks:
        def plan(self) -> None:
            looked.append("plan")

        def converge(self, host: HostId) -> None:
            looked.append(host)

    app = celery_app(redis.url)
    add_tasks(app, Looks())
    wake.plan()
    wake.host(HOST)
    assert wake.flush(5)
    for queue in (PLAN_QUEUE, host_queue(HOST)):
        (message,) = messages(redis, queue)
        app.tasks[message["headers"]["task"]].apply(kwargs=arguments_of(message))
    assert looked == ["plan", HOST]


def arguments_of(message: dict[str, Any]) -> dict[str, Any]:
    body = json.loads(base64.b64decode(message["body"]))
    arguments = body[1]
    assert isinstance(arguments, dict)
    return arguments


def test_what_is_wanted_twice_before_it_is_sent_is_sent_once(redis: RedisServer, wake: CeleryWake) -> None:
    wake.plan()
    assert wake.flush(5)
    redis.stop()
    for _ in range(1000):
        wake.host(HOST)
    redis.go_on()
    assert wake.flush(5)
    # One that may have been on its way when Redis stopped, and one for the rest.
    assert len(messages(redis, host_queue(HOST))) <= 2


def test_a_queue_that_nobody_reads_does_not_grow_past_its_bound(
    redis: RedisServer, wake: CeleryWake, log: pytest.LogCaptureFixture
) -> None:
    for _ in range(MOST_WAITING + 20):
        wake.host(HOST)
        assert wake.flush(5)
    wake.plan()
    assert wake.flush(5)
    assert len(messages(redis, host_queue(HOST))) == MOST_WAITING
    assert len(messages(redis, PLAN_QUEUE)) == 1
    (told,) = log.messages
    assert told.startswith("wake.queue.failed of=host.dgx2-a code=queue.full")


def test_waking_never_waits_and_is_told_once_while_redis_is_away(
    redis: RedisServer, wake: CeleryWake, log: pytest.LogCaptureFixture
) -> None:
    wake.plan()
    assert wake.flush(5)
    redis.kill()
    began_s = time.monotonic()
    for _ in range(20):
        wake.plan()
    assert time.monotonic() - began_s < 0.2
    for _ in range(5):
        wake.plan()
        assert wake.flush(5)
    redis.start()
    wake.plan()
    assert wake.flush(5)
    assert len(messages(redis, PLAN_QUEUE)) == 1
    failed, recovered = log.messages
    assert failed.startswith("wake.send.failed code=redis.away")
    assert recovered.startswith("wake.send.recovered")


def test_waking_and_closing_do_not_wait_for_a_redis_that_hangs(redis: RedisServer) -> None:
    wake = CeleryWake(redis.url)
    redis.stop()
    began_s = time.monotonic()
    wake.plan()
    wake.host(HOST)
    assert time.monotonic() - began_s < 0.2
    wake.close()
    assert time.monotonic() - began_s < 1.5


def test_closing_sends_what_is_left(redis: RedisServer) -> None:
    wake = CeleryWake(redis.url)
    wake.plan()
    wake.close()
    wake.plan()
    assert len(messages(redis, PLAN_QUEUE)) == 1


def test_a_socket_in_a_directory_with_strange_names_is_found(tmp_path: Path) -> None:
    home = tmp_path / "a b%c"
    home.mkdir()
    server = RedisServer(home)
    server.start()
    wake = CeleryWake(server.url)
    try:
        wake.plan()
        assert wake.flush(5)
        assert len(messages(server, PLAN_QUEUE)) == 1
    finally:
        wake.close()
        server.kill()


def test_nobody_is_woken_by_one_that_wakes_nobody() -> None:
    wake = NoWake()
    wake.plan()
    wake.host(HOST)
    assert wake.flush(0)
    wake.close()


def test_a_ping_tells_whether_redis_answers(redis: RedisServer) -> None:
    assert ping(redis.url).is_up
    redis.stop()
    began_s = time.monotonic()
    hung = ping(redis.url)
    assert not hung.is_up
    assert time.monotonic() - began_s < 2
    redis.go_on()
    redis.kill()
    away = ping(redis.url)
    assert not away.is_up
    assert "does not answer" in away.detail


@pytest.mark.parametrize("url", ["", "http://localhost", "redis+socket://", "/tmp/redis.sock", "redis://host:port"])
def test_a_url_that_names_no_redis_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(BadRedisUrl):
        open_redis(url)


def test_a_password_is_not_shown() -> None:
    assert shown("redis://user:secret@db.example:6379/0") == "redis://user:…@db.example:6379/0"
    assert shown("redis+socket:///run/redis.sock") == "redis+socket:///run/redis.sock"


def test_a_client_of_each_kind_of_url_goes_where_it_says() -> None:
    assert open_redis("redis://db.example:7000/3").connection_pool.connection_kwargs["port"] == 7000
    assert open_redis("redis+socket:///run/r.sock?virtual_host=2").connection_pool.connection_kwargs["db"] == 2
    assert open_redis("redis+socket:///run/r.sock").connection_pool.connection_kwargs["path"] == "/run/r.sock"
