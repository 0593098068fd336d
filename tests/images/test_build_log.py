"""What is told of a builder's output, as BuildKit and the builder before it printed it."""

from __future__ import annotations

from dom0.images.build_log import A_WHILE, BuildLog

BEGINS = """\
#0 building with "default" instance using docker driver

#1 [web internal] load build definition from Dockerfile
#1 transferring dockerfile: 198B done
#1 DONE 1.1s

#2 [web one 1/2] FROM docker.io/library/busybox:test
#2 CACHED

#3 [web one 2/2] RUN for i in 1 2 3; do echo line $i; sleep 1; done
#3 0.946 line 1
#3 ...

#4 [api stage-1 2/2] RUN sleep 0.1
#4 DONE 0.2s

#3 [web one 2/2] RUN for i in 1 2 3; do echo line $i; sleep 1; done
#3 1.952 line 2
"""
GOOD = f"""{BEGINS}#3 DONE 4.3s
#5 [web] exporting to image
#5 exporting layers 0.1s done
#5 DONE 0.1s
"""
BAD = f"""{BEGINS}#3 ERROR: process "/bin/sh -c for" did not complete successfully: exit code: 3
------
 > [web one 2/2] RUN for i in 1 2 3; do echo line $i; sleep 1; done:
1.952 line 2
------
Dockerfile:6
--------------------
   6 | >>> RUN for i in 1 2 3; do echo line $i; sleep 1; done
--------------------
ERROR: failed to solve: process "/bin/sh -c for" did not complete successfully: exit code: 3
"""
OLD = """\
DEPRECATED: The legacy builder is deprecated
Sending build context to Docker daemon  4.096kB
Step 1/2 : FROM busybox:test
 ---> 0d20c7c4f82b
Step 2/2 : RUN echo bad; exit 3
 ---> Running in adfc06aaf8b5
bad
The command '/bin/sh -c echo bad; exit 3' returned a non-zero code: 3
"""


def read(text: str) -> tuple[BuildLog, list[str]]:
    """All in the moment 0, as of a builder that is quick."""
    log = BuildLog()
    return log, [told for line in text.splitlines() for told in log.read(line, 0.0)]


def test_a_step_that_prints_is_told_once_and_how_long_it_took_if_that_is_worth_a_word() -> None:
    _, told = read(GOOD)
    assert told == [
        "[web one 2/2] RUN for i in 1 2 3; do echo line $i; sleep 1; done",
        "[web one 2/2] RUN for i in 1 2 3; do echo line $i; sleep 1; done: DONE 4.3s",
    ]


def test_a_step_that_prints_nothing_is_told_after_a_while_and_what_is_cached_never() -> None:
    log = BuildLog()
    began = [told for line in ("#4 [1/2] FROM x", "#4 CACHED", "#5 [2/2] RUN make") for told in log.read(line, 7.0)]
    assert began == []
    assert log.read("", 7.0 + A_WHILE - 0.1) == []
    assert log.read("", 7.0 + A_WHILE) == ["[2/2] RUN make"]
    assert log.read("", 7.0 + 2 * A_WHILE) == log.read("#5 1.2 cc", 20.0) == []


def test_of_a_failure_there_is_the_step_with_all_that_it_printed_and_the_end() -> None:
    log, _ = read(BAD)
    assert log.failure().splitlines() == [
        " > [web one 2/2] RUN for i in 1 2 3; do echo line $i; sleep 1; done",
        "0.946 line 1",
        "1.952 line 2",
        "Dockerfile:6",
        "--------------------",
        "   6 | >>> RUN for i in 1 2 3; do echo line $i; sleep 1; done",
        "--------------------",
        'ERROR: failed to solve: process "/bin/sh -c for" did not complete successfully: exit code: 3',
    ]


def test_what_fails_before_the_first_step_is_there_as_it_was_said() -> None:
    log, told = read("services.web.build: no such thing\nsee the manual\n")
    assert (log.failure(), told) == ("services.web.build: no such thing\nsee the manual", [])


def test_the_builder_before_buildkit_is_understood_too() -> None:
    log, told = read(OLD)
    assert told == ["[2/2] RUN echo bad; exit 3"]
    assert log.failure().splitlines() == OLD.splitlines()[4:]


def test_a_long_step_is_told_in_short() -> None:
    _, told = read(f"#7 [2/2] RUN {'x' * 500}\n#7 0.1 x\n")
    assert len(told[0]) == 100
