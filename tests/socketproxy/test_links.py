"""Variables of links, as the Engine's own bridge sets them, with names in place of addresses."""

from __future__ import annotations

from dom0.socketproxy import links

DB = {"Config": {"ExposedPorts": {"6379/tcp": {}, "53/udp": {}, "53/tcp": {}}, "Env": ["PATH=/bin", "A=b=c", "bad"]}}


def test_they_say_where_each_port_is_and_the_others_environment() -> None:
    said = links.variables("web", ["db:my-db"], {"db": DB})
    assert said[0] == "MY_DB_PORT=tcp://my-db:53"
    assert [one for one in said if "6379" in one] == [
        "MY_DB_PORT_6379_TCP=tcp://my-db:6379",
        "MY_DB_PORT_6379_TCP_ADDR=my-db",
        "MY_DB_PORT_6379_TCP_PORT=6379",
        "MY_DB_PORT_6379_TCP_PROTO=tcp",
    ]
    assert "MY_DB_PORT_53_UDP=udp://my-db:53" in said
    assert said[-2:] == ["MY_DB_NAME=/web/my-db", "MY_DB_ENV_A=b=c"]


def test_without_ports_there_is_a_name() -> None:
    assert links.variables("web", ["db"], {"db": {"Config": {}}}) == ["DB_NAME=/web/db"]
