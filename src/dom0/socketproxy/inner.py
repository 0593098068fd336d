"""Budgets of the scopes inside this one, whose servers ask its socket for them: groups below its own.

Who asks names a scope by its path from here, so no group is meant but one below. There are as many as each scope around
it may have containers: who serves one in another scope sees no groups, and says its grant to who does. A container of
such a scope is put into its group by who serves it, with that path as its `CgroupParent`.
"""

from __future__ import annotations

from functools import reduce

from msgspec.structs import replace

from dom0.errors import Dom0Error
from dom0.socketproxy import budget, cgroup, requests
from dom0.socketproxy.cgroup import CgroupDriver, Group
from dom0.socketproxy.context import Asked, Context, Document
from dom0.socketproxy.grants import Grants
from dom0.socketproxy.refusal import BAD_REQUEST, CONFLICT, FORBIDDEN, UNAVAILABLE, Refused, never, not_granted


async def budgeted(context: Context, asked: Asked) -> Document:
    """Make the group of a scope inside, or give it other limits. Without one of our own it has none either.

    Raises Refused.
    """
    body: requests.Budget = asked.body
    group = cgroup.inner(context.cgroup_parent, body.scope)
    if group is None:
        raise Refused(BAD_REQUEST, f"Scope: {body.scope!r} is not the path of a scope", field="Scope")
    if odd := [path for path in body.containers if not path or not body.scope.startswith(f"{path}/")]:
        raise Refused(BAD_REQUEST, f"Containers: {body.scope} is not in {odd[0]!r}", field="Containers")
    try:
        wanted = Grants(
            memory=body.memory or None,
            cpus=body.nano_cpus / 1e9 if body.nano_cpus else None,
            pids=body.pids_limit or None,
        )
    except ValueError as error:
        raise Refused(BAD_REQUEST, str(error)) from error
    for key in wanted.budget.asked():
        most, more = getattr(context.grants.budget, key), getattr(wanted.budget, key)
        if most is not None and more > most:
            raise not_granted(key, more, replace(Grants(), **{key: more}))
    if not context.cgroup_parent and not wanted.budget.asked():
        return Document({"CgroupParent": ""})
    if not context.cgroup_parent:
        what = f"{context.scope.name} has no control group of its own, and so has nothing inside it"
        raise Refused(FORBIDDEN, what, field="Scope")
    if context.cgroups is None:  # the server above has them
        own = context.scope.path
        around = {own: context.grants.containers, **{own + path: most for path, most in body.containers.items()}}
        above = replace(body, scope=own + body.scope, containers=around)
        await context.ask("PUT", *budget.BUDGET, body=above)
    else:
        await _make(context, context.cgroups, group, body, wanted)
    return Document({"CgroupParent": body.scope})


async def _make(context: Context, driver: CgroupDriver, group: Group, body: requests.Budget, wanted: Grants) -> None:
    async with context.making:
        try:
            driver = budget.driver_now(context.upstream, driver)
            for path, most in {**body.containers, "": context.grants.containers}.items():
                _check_room(context, driver, body.scope, path, most)
            await budget.make(driver, group, wanted.budget)
            if wanted.budget.asked():
                await budget.check_members(context.upstream, context.scope.path + body.scope, group)
        except (Dom0Error, OSError) as error:
            what = str(error).replace(cgroup.directory_of(context.cgroup_parent), context.scope.name)
            raise Refused(CONFLICT, context.scope.without_prefix(what)) from error


def _check_room(context: Context, driver: CgroupDriver, path: str, around: str, most: int) -> None:
    """For the group of `path`, and those above that are missing, in that of `around`, which may have `most` containers.

    The kernel has only so many groups, and one that is empty stays. Raises Refused.
    """
    missing = 0
    while path != around and not budget.is_there(driver, cgroup.group(_parent(context, path))):
        missing += 1
        path = path.rpartition("/")[0]
    if not missing:
        return
    count = budget.count_inside(driver, cgroup.group(_parent(context, around))) + missing
    if count > most:
        name = around.rpartition("/")[2] or context.scope.name
        what = f"scopes inside {name} can have {most} control groups, as many as there may be containers"
        raise Refused(FORBIDDEN, what, field="Scope", grant=Grants(containers=count))


def _parent(context: Context, path: str) -> str:
    """The `CgroupParent` of a scope inside, or ("") of this one."""
    return reduce(cgroup.below, path.split("/")[1:], context.cgroup_parent)


def parent(context: Context, asked: str, field: str) -> str:
    """The `CgroupParent` of a container, where a scope inside is asked for or ("") none. Raises Refused."""
    if not asked:
        return context.cgroup_parent
    group = cgroup.inner(context.cgroup_parent, asked) if context.cgroup_parent else None
    if group is None:
        raise never(field, asked)
    if context.cgroups is None:  # the outer scope knows whether it is there
        return group.parent
    try:
        is_there = budget.is_there(budget.driver_now(context.upstream, context.cgroups), group)
    except (Dom0Error, OSError) as error:
        raise Refused(UNAVAILABLE, f"the control groups of {context.scope.name} cannot be seen: {error}") from error
    if not is_there:
        raise never(field, asked)
    return group.parent
