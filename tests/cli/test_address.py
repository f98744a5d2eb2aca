"""Where commands find the server and the token, and that no token goes where it does not belong."""

import json
import os
from pathlib import Path

import pytest

from cli.address import Kept, NoServer, checked_url, find_address, keep, kept_path
from tests.cli.command_line import environment


def write_local(tmp_path: Path, *, url: str = "http://127.0.0.1:8470", token: str = "ns_local") -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "up.json").write_text(json.dumps({"pid": 1, "url": url, "speed": 1}))
    (data / "admin.token").write_text(token + "\n")


def found(
    tmp_path: Path, *, server: str | None = None, token: str | None = None, **environ: str
) -> tuple[str, str | None]:
    address = find_address(
        server=server, token=token, is_insecure_allowed=False, environ=environment(tmp_path, **environ)
    )
    return address.url, address.token


def test_without_any_server_it_is_said_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match=r"`nightshift up`.*`nightshift login URL`.*NIGHTSHIFT_SERVER"):
        found(tmp_path)


def test_the_server_that_runs_here_is_found_with_its_admin_token(tmp_path: Path) -> None:
    write_local(tmp_path)
    assert found(tmp_path) == ("http://127.0.0.1:8470", "ns_local")


def test_what_login_kept_comes_before_the_server_that_runs_here(tmp_path: Path) -> None:
    write_local(tmp_path)
    keep(Kept(url="https://gpu.uni.edu", token="ns_kept"), environment(tmp_path))
    assert found(tmp_path) == ("https://gpu.uni.edu", "ns_kept")


def test_options_come_before_the_environment_and_that_before_what_was_kept(tmp_path: Path) -> None:
    keep(Kept(url="https://gpu.uni.edu", token="ns_kept"), environment(tmp_path))
    environ = {"NIGHTSHIFT_SERVER": "https://env.uni.edu", "NIGHTSHIFT_TOKEN": "ns_env"}
    assert found(tmp_path, **environ) == ("https://env.uni.edu", "ns_env")
    assert found(tmp_path, server="https://opt.uni.edu", token="ns_opt", **environ) == ("https://opt.uni.edu", "ns_opt")


def test_a_kept_or_local_token_is_never_sent_to_another_server(tmp_path: Path) -> None:
    write_local(tmp_path)
    keep(Kept(url="https://gpu.uni.edu", token="ns_kept"), environment(tmp_path))
    assert found(tmp_path, server="https://evil.example") == ("https://evil.example", None)
    assert found(tmp_path, server="https://gpu.uni.edu/") == ("https://gpu.uni.edu", "ns_kept")
    assert found(tmp_path, server="127.0.0.1:8470") == ("http://127.0.0.1:8470", "ns_local")


def test_a_token_in_clear_over_the_network_needs_a_word(tmp_path: Path) -> None:
    with pytest.raises(NoServer, match=r"http://gpu.uni.edu is another machine.*https://.*--insecure"):
        found(tmp_path, server="http://gpu.uni.edu")
    address = find_address(
        server="http://gpu.uni.edu", token="ns_x", is_insecure_allowed=True, environ=environment(tmp_path)
    )
    assert address.url == "http://gpu.uni.edu"
    for here in ("http://localhost:8470", "http://127.0.0.1:8470", "http://[::1]:8470", "http://127.8.9.1"):
        assert found(tmp_path, server=here)[0] == here


@pytest.mark.parametrize(
    "text",
    ["", " ", "ftp://x", "http://", "http://user:pass@x", "http://x?y=1", "http://x#y", "http://x:99999",
     "http://x:port", "http://[::1", "http://a\nb", "http://٣", "a b", "http://a..b", "http://[::g]"],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_the_value(text: str) -> None:
    with pytest.raises(NoServer) as refused:
        checked_url(text)
    assert repr(text) in refused.value.message


def test_the_kept_file_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = keep(Kept(url="https://gpu.uni.edu", token='odd "token"'), environment(tmp_path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert found(tmp_path) == ("https://gpu.uni.edu", 'odd "token"')
    assert [file.name for file in tmp_path.iterdir()] == ["client.toml"]


@pytest.mark.parametrize("text", ["server = 3", "x", "server = 'https://x'", "server = 3\ntoken = 4"])
def test_a_damaged_kept_file_says_to_log_in_again(tmp_path: Path, text: str) -> None:
    kept_path(environment(tmp_path)).write_text(text)
    with pytest.raises(NoServer, match=r"client.toml is damaged .*nightshift login"):
        found(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 3}', '{"url": "ftp://x"}', "\x00"])
def test_a_torn_note_of_the_local_server_counts_as_none(tmp_path: Path, text: str) -> None:
    write_local(tmp_path)
    (tmp_path / "data" / "up.json").write_text(text)
    with pytest.raises(NoServer, match="no server is named"):
        found(tmp_path)
