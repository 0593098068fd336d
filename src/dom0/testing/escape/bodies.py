"""Bodies as nobody should send them: every key that the models know with values that fit or reach outside, then spoilt.

All comes from the `random.Random` that is given: hypothesis has one that it can make smaller, `fuzz` one with a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

VICTIM, OWN = "b" * 64, "a" * 64  # IDs of a container that is foreign, and of one that is the scope's
WORDS = (
    *("", "a", "db", "db:alias", "victim", f"{VICTIM}:ro", "container:db", "container:victim", f"container:{VICTIM}"),
    *("host", "none", "private", "shareable", "default", "bridge", "front", "other.front", "guest.front", "HOST"),
    *("/", "/etc", "/etc:/e", "/etc/:/e:ro", "//etc:/e", "./x:/e", "../etc:/e", "~:/e", "C:\\:/e", "/proc/1/root:/r"),
    *("data", "data:/d", "data:/d:ro", "data:/d:rshared", "data:/d:Z,ro", "guest.data:/d", "other.data:/d", "a/b:/d"),
    *("/var/run/docker.sock", "/var/run/docker.sock:/s", "/run/docker.sock:/s:ro", "/var/run/../run/docker.sock:/s"),
    *("NET_ADMIN", "cap_net_admin", "SYS_ADMIN", "ALL", "all", "CAP_ALL", "NET_ADMIN\n", "\u017fys_admin", " host"),
    *("no-new-privileges", "no-new-privileges:false", "seccomp=unconfined", "apparmor=unconfined", "label=disable"),
    *("systempaths=unconfined", "label:type:x", "volume", "bind", "tmpfs", "image", "cluster", "npipe", "Bind"),
    *("json-file", "syslog", "unix:///run/x", "runc", "other", "always", "on-failure", "process", "hyperv", "nfs"),
    *("80", "80/tcp", "8080", "8080-8090", "0", "65536", "127.0.0.1", "::", "fe80::1%eth0", "-1"),
    *("size=1m", "size=1m,suid", "noexec,nosuid", "dev", "exec", "net.core.somaxconn", "kernel.core_pattern", "local"),
    *("net.", "fs.mqueue.x", "kernel.sem", "user.max_user_namespaces", "/guest", "/other", "/guest/team", "dom0.scope"),
    *("rprivate", "x:host-gateway", "1g", "\u00e9", "\u212a", "\u0000", "%2e%2e", "com.docker.network.bridge.name"),
    *("/srv/guest:/g", "/srv/guest/x:/g", "/srv/guest/../../etc:/e", "/srv/guestx:/g", "/srv/guest/../lib/y:/y:ro"),
    *("/srv/media:/m", "/srv/media/films:/m:rw", "/var/lib/guest/a/b:/l", "/srv/guest", "/srv/guest/x", "/srv/media"),
    *("overlay", "macvlan", "10.0.0.5", "rootfs", "0.0.0.0"),  # noqa: S104 -- asked for
)
LIKELY: dict[str, tuple[Any, ...]] = {
    "Image": ("busybox:test",),
    "Cmd": (["sleep", "1000"],),
    "Binds": (
        ["data:/d"],
        ["data:/d:ro", "more:/m"],
        ["/srv/guest/x:/g", "/srv/media:/m"],
        ["/var/run/docker.sock:/var/run/docker.sock"],
    ),
    "Mounts": (
        [{"Type": "volume", "Source": "data", "Target": "/d"}],
        [{"Type": "volume", "Target": "/d"}],
        [{"Type": "bind", "Source": "/srv/media", "Target": "/m", "BindOptions": {"CreateMountpoint": True}}],
        [{"Type": "bind", "Source": "/srv/guest/y", "Target": "/y", "ReadOnly": True}],
        [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 65536}}],
    ),
    "NetworkMode": ("", "default", "bridge", "none", "front"),
    "EndpointsConfig": ({"front": {}}, {"front": {"Aliases": ["a"]}}),
    "CapAdd": (["NET_ADMIN"], ["CAP_NET_RAW"]),
    "SecurityOpt": (["no-new-privileges"],),
    "Sysctls": ({"net.ipv4.ip_forward": "1"},),
    "Tmpfs": ({"/t": "size=1m"}, {"/t": ""}),
    "PortBindings": ({"80/tcp": [{"HostPort": "8080"}]},),
    "RestartPolicy": ({"Name": "no"}, {"Name": "always"}),
    "LogConfig": ({"Type": "json-file", "Config": {"max-size": "1m"}},),
    "Ulimits": ([{"Name": "nofile", "Soft": 10, "Hard": 20}],),
    "CgroupnsMode": ("", "private"),
    "IpcMode": ("", "private", "shareable", "none"),
    "Volumes": ({"/v": {}},),
    "Labels": ({"a": "b"}, {"dom0.scope": "/team"}),
    "Memory": (0, 64 << 20),
    "Isolation": ("", "default"),
    "Runtime": ("", "runc"),
    "StopSignal": ("", "TERM"),
    "Driver": ("", "bridge", "local"),
    "MemorySwappiness": (-1, 0),
    "ConsoleSize": ([0, 0],),
}
"""Values that pass, so that what stands beside them is judged too."""
UNKNOWN = (
    "Cgroup",
    "ContainerIDFile",
    "DriverConfig",
    "ConfigFrom",
    "Spec",
    "Extra",
    "Kernel_Memory",
    "Config",
    "Binds",
)
NUMBERS = (0, 1, -1, 5, 1 << 31, 1 << 63, -(1 << 63) - 1, 1e3, 0.5, -0.0, 1e400, True)


class Pairs(list[tuple[str, Any]]):
    """An object of JSON in which a key may stand twice."""


def request(random: Random, target: str, model: type[msgspec.Struct]) -> bytes:
    """A whole POST with a body of `model`."""
    raw = body(random, model)
    return f"POST {target} HTTP/1.1\r\nHost: docker\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw


def body(random: Random, model: type[msgspec.Struct], *, spoilt: int = 3) -> bytes:
    """A body of `model`; one in `spoilt` is no longer what the model says."""
    value = _object(random, model, few=6)
    raw = _written
    while random.randrange(spoilt) == 0:
        value = _spoilt(random, value)
        raw = random.choice((_written, _written, _written, _escaped))
    text = raw(value).encode("utf-8", "surrogatepass")
    return _bytes_spoilt(random, text) if random.randrange(spoilt * 8) == 0 else text


def _object(random: Random, model: type[msgspec.Struct], *, few: int) -> Pairs:
    fields = msgspec.structs.fields(model)
    chosen = [field for field in fields if field.required or field.encode_name in ("Image", "HostConfig", "Name")]
    chosen += random.sample(fields, min(len(fields), random.randrange(few)))
    unique = {field.encode_name: field.type for field in chosen}
    return Pairs((key, _value(random, key, type_)) for key, type_ in unique.items())


def _value(random: Random, key: str, type_: Any) -> Any:
    if key in LIKELY and random.randrange(5):
        return _tree(random.choice(LIKELY[key]))
    options = get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)
    option = random.choice([one for one in options if one is not type(None)])
    origin = get_origin(option)
    if origin is tuple:
        return [_value(random, "", get_args(option)[0]) for _ in range(random.randrange(3))]
    if origin is dict:
        inner = get_args(option)[1]
        return Pairs((random.choice(WORDS), _value(random, "", inner)) for _ in range(random.randrange(3)))
    if isinstance(option, type) and issubclass(option, msgspec.Struct):
        return _object(random, option, few=5)
    return _scalar(random, option)


def _scalar(random: Random, type_: Any) -> Any:
    if type_ is bool:
        return random.randrange(2) == 0
    return random.choice(NUMBERS[:5]) if type_ is int else random.choice(WORDS)


def _tree(value: Any) -> Any:
    if isinstance(value, dict):
        return Pairs((key, _tree(item)) for key, item in value.items())
    return [_tree(item) for item in value] if isinstance(value, list) else value


# spoiling


def _spoilt(random: Random, value: Any) -> Any:
    """`value` with one place in it made wrong."""
    if isinstance(value, Pairs) and value and random.randrange(12):
        place = random.randrange(len(value))
        key, item = value[place]
        if random.randrange(3):
            return Pairs([*value[:place], (key, _spoilt(random, item)), *value[place + 1 :]])
        return random.choice(_OF_KEYS)(random, value, place)
    if isinstance(value, list) and not isinstance(value, Pairs) and value and random.randrange(3):
        place = random.randrange(len(value))
        return [*value[:place], _spoilt(random, value[place]), *value[place + 1 :]]
    return random.choice(_OF_VALUES)(random, value)


def _other_case(random: Random, pairs: Pairs, place: int) -> Pairs:
    """The Engine takes keys in any case, and in Unicode's folding."""
    key, item = pairs[place]
    change: Callable[[str], str] = random.choice(
        (str.lower, str.upper, str.swapcase, lambda k: k.replace("s", "\u017f"), lambda k: k.replace("k", "\u212a"))
    )
    return Pairs([*pairs[:place], (change(key), item), *pairs[place + 1 :]])


def _twice(random: Random, pairs: Pairs, place: int) -> Pairs:
    key, item = pairs[place]
    again = (random.choice((key, key.lower(), key.swapcase())), random.choice((_spoilt(random, item), None, item)))
    return Pairs(random.sample([*pairs, again], len(pairs) + 1))


def _key_more(random: Random, pairs: Pairs, _place: int) -> Pairs:
    return Pairs([*pairs, (random.choice(UNKNOWN + WORDS), random.choice((*WORDS, *NUMBERS, None, [], Pairs())))])


def _moved_up(random: Random, pairs: Pairs, place: int) -> Pairs:
    """What stands in an object below stands beside it."""
    _key, item = pairs[place]
    return Pairs([*pairs, *(item if isinstance(item, Pairs) else ())])


def _nested(random: Random, value: Any) -> Any:
    for _ in range(random.choice((1, 2, 50))):
        value = [value] if random.randrange(2) else Pairs([("HostConfig", value)])
    return value


_OF_KEYS = (_other_case, _twice, _key_more, _moved_up)
_OF_VALUES: tuple[Callable[[Random, Any], Any], ...] = (
    lambda random, value: [value],
    lambda random, value: value[0] if isinstance(value, list) and value and not isinstance(value, Pairs) else None,
    lambda random, value: str(value) if isinstance(value, str | int | float) else "",
    lambda random, value: random.choice(WORDS),
    lambda random, value: random.choice(NUMBERS),
    lambda random, value: random.choice((None, [], Pairs(), "", False)),
    lambda random, value: Pairs([(random.choice(WORDS), value)]),
    lambda random, value: f"{value}{random.choice(WORDS)}" if isinstance(value, str) else value,
    _nested,
)


def _bytes_spoilt(random: Random, text: bytes) -> bytes:
    place = random.randrange(len(text) + 1)
    return random.choice(
        (
            text[:place],
            text[:place] + bytes([random.randrange(256)]) + text[place:],
            text[:place] + bytes([random.randrange(256)]) + text[place + 1 :],
            b"\xef\xbb\xbf" + text,
            text + text,
            text.decode("utf-8", "replace").encode("utf-16"),
            text.replace(b'"', b"'"),
            text.replace(b":", b": \x00", 1),
            text.replace(b"a", b"\\ud800"),
            text.replace(b"[", b"[" * random.choice((100, 2000, 100_000)), 1),
        )
    )


# writing


def _written(value: Any) -> str:
    """As JSON, keys that stand there twice too; a number too large for it as one."""
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_written(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_written, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _escaped(value: Any) -> str:
    """The same with the first letter of each key as its number."""
    text = _written(value)
    return text.replace('{"P', '{"\\u0050').replace(',"B', ',"\\u0042').replace('"H', '"\\u0048')
