"""Which libvirt URIs are taken, and what is said of those that are not."""

import pytest

from scheduler.core.connect import connect_problem, machine_of


@pytest.mark.parametrize(
    "uri",
    [
        "qemu:///system",
        "qemu:///session",
        "qemu+unix:///system",
        "qemu+unix:///system?socket=/run/libvirt/libvirt-sock",
        "qemu+ssh://dgx2-a/system",
        "qemu+ssh://root@dgx2-a.example.edu:2222/system",
        "qemu+ssh://root@dgx2-a/system?keyfile=/etc/nightshift/id_ed25519&no_tty=1",
        "qemu+tls://dgx2-a/system",
        "qemu+tls://[2001:db8::7]:16514/system",
        "qemu+tcp://127.0.0.1:16509/system",
        "qemu+tcp://localhost/system",
        "qemu+tcp://[::1]/system",
    ],
)
def test_what_leads_safely_to_a_libvirt_is_taken(uri: str) -> None:
    assert connect_problem(uri) is None


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "it is not a libvirt URI; write it like"),
        ("dgx2-a", "qemu:///system on the host itself"),
        ("qemu+ssh://dgx2-a/system\n", "printable"),
        ("qemu+ssh://dgx2-a /system", "printable"),
        ("qemu+ssh://dgx2-ä/system", "printable"),
        ("qemu+ssh://" + "a" * 600 + "/system", "at most 512"),
        ("xen:///system", "its scheme is 'xen'; use one of qemu, qemu+unix, qemu+ssh, qemu+tls, qemu+tcp"),
        ("qemu+ext://dgx2-a/system", "its scheme is 'qemu+ext'"),
        ("qemu+ssh://dgx2-a", "its path is ''; end it with /system"),
        ("qemu+ssh://dgx2-a/", "its path is '/'"),
        ("qemu:///system#x", "a part after #"),
        ("qemu://dgx2-a/system", "qemu reaches only the worker's own machine; write qemu:///system there"),
        ("qemu+ssh:///system", "it names no machine that qemu+ssh could reach; write qemu+ssh://NAME/system"),
        ("qemu+ssh://-oProxyCommand=x/system", "it names no machine"),
        ("qemu+ssh://-oProxyCommand=x@dgx2-a/system", "not a user's name"),
        ("qemu+ssh://@dgx2-a/system", "not a user's name"),
        ("qemu+tls://dgx2-a:99999/system", "its port is 99999; give 1 to 65535"),
        ("qemu+tls://dgx2-a:0/system", "its port is 0"),
        ("qemu+tcp://dgx2-a/system", "no encryption and no login"),
        ("qemu+tcp://127.0.0.1.example.edu/system", "use qemu+tls or qemu+ssh"),
        ("qemu+ssh://dgx2-a/system?command=/tmp/x", "its parameter 'command' is not taken"),
        ("qemu+tls://dgx2-a/system?no_verify=1", "its parameter 'no_verify' is not taken"),
        ("qemu+ssh://dgx2-a/system?keyfile=", "its parameter 'keyfile' is not taken"),
        ("qemu:///system?", "its parameter '' is not taken"),
    ],
)
def test_what_is_not_taken_is_told_with_what_to_write(uri: str, said: str) -> None:
    problem = connect_problem(uri)
    assert problem is not None
    assert said in problem


@pytest.mark.parametrize(
    "uri",
    [
        "qemu+ssh://root:hunter2@dgx2-a/system",
        "qemu+tls://a@b:hunter2@dgx2-a/system",
        "qemu://root:hunter2@dgx2-a",
        "x://:hunter2@dgx2-a/system?a#b",
    ],
)
def test_a_password_is_refused_and_not_repeated(uri: str) -> None:
    problem = connect_problem(uri)
    assert problem is not None
    assert "it holds a password" in problem
    assert "hunter2" not in problem


def test_the_machine_is_the_same_however_it_is_reached() -> None:
    assert machine_of("qemu+ssh://root@DGX2-a:22/system") == machine_of("qemu+tls://dgx2-a/system") == "dgx2-a"
    assert machine_of("qemu+tls://[2001:DB8::7]/system") == "2001:db8::7"
    assert machine_of("qemu:///system") == machine_of("qemu+unix:///system") == ""
