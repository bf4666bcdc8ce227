"""What the kernel holds, as a ruleset that can be kept and gone back to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fwguardd.enforce.look import look_at
from fwguardd.enforce.record import new_in_force
from fwguardd.ruleset.canonical import Canonical
from fwguardd.ruleset.model import Ruleset, Table

if TYPE_CHECKING:
    from fwguardd.enforce.context import Context
    from fwguardd.enforce.record import Cause
    from fwguardd.enforce.state import InForce
    from fwguardd.ruleset.canonical import Owned
    from fwguardd.ruleset.model import Family


def found_in_kernel(context: Context, tables: Owned, why: Cause) -> InForce:
    """What the kernel holds in these tables, but for what belongs to other programs. Raises KernelError.

    A table that the kernel does not have is recorded as one that accepts everything. Nothing is written.
    """
    wanted: dict[Family, Ruleset] = {}
    for family, name in sorted(tables, key=str):
        named = wanted.setdefault(family, Ruleset(family, {}))
        wanted[family] = Ruleset(family, {**named.tables, name: Table(name, {})})
    look = look_at(context.kernel, wanted, context.preserve)
    return new_in_force(context, "", Canonical.from_kernel(look.own, wanted), why)
