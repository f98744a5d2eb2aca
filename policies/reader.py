"""Takes the groups and lists of a policy apart into `Fields`, and collects what is to be said about them."""

from collections.abc import Mapping

from policies.document import Entries, Kind, Node, Scalar, kind_of
from policies.fields import MOST_ITEMS, Fields
from policies.problems import Place, Problem, warning
from scheduler.core.settings import Settings


class Reader:
    """Shared by all who read parts of one policy."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.problems: list[Problem] = []
        self.notes: list[Problem] = []
        self.place_by_part: dict[str, Place] = {}

    def fields(
        self, entries: Entries, where: str, known: tuple[str, ...], other_names: Mapping[str, str] | None = None
    ) -> Fields:
        return Fields(entries, where=where, known=known, problems=self.problems, other_names=other_names)

    def group(self, parent: Fields, key: str, where: str, known: tuple[str, ...]) -> Fields | None:
        """Return the keys of a group; None if it is absent."""
        entries = parent.group(key)
        return None if entries is None else self.fields(entries, where, known)

    def named_groups(
        self,
        parent: Fields,
        key: str,
        what: str,
        known: tuple[str, ...],
        *,
        is_owner: bool = False,
        most: int = MOST_ITEMS,
    ) -> list[tuple[str, Fields]]:
        """Return the groups in a group, such as the queues; a group without keys (`hpc:`) takes every default."""
        group = parent.group(key)
        if group is None:
            return []
        if not group.entries:
            parent.note(group.place, f"has no {key}", None, f"name at least one {what}")
        groups = []
        for name, node in group.entries[:most]:
            entries = _entries(node)
            if not (parent.is_owner(name.text) if is_owner else parent.is_name(name.text)):
                instead = "use letters, digits, '.', '_', '-', at most 40"
                parent.note(name.place, f"gives a {what} a name that cannot be used", name.text, instead)
            if entries is None:
                parent.note(node.place, f"{what} {name.text[:40]!r} must be a group of keys, not {kind_of(node)}")
                continue
            self.place_by_part[f"{what} {name.text}"] = name.place
            groups.append((name.text, self.fields(entries, f"{what} {name.text[:40]}", known)))
        if len(group.entries) > most:
            parent.note(group.place, f"has more than {most} {key}", str(len(group.entries)), "shorten the list")
        return groups

    def list_of_groups(
        self, parent: Fields, key: str, what: str, known: tuple[str, ...], other_names: Mapping[str, str] | None = None
    ) -> list[Fields]:
        """Return the groups in a list, each named in messages by its name if it has one, else by its number."""
        found = []
        for number, node in enumerate(parent.items(key) or (), start=1):
            if not isinstance(node, Entries):
                parent.note(node.place, f"{key} item {number} must be a group of keys, not {kind_of(node)}")
                continue
            name_node = node.get("name")
            name = name_node.text[:40] if isinstance(name_node, Scalar) else ""
            shown = name if parent.is_name(name) else f"number {number}"
            found.append(self.fields(node, f"{what} {shown}", known, other_names))
        return found

    def not_enforced(self, place: Place, what: str) -> None:
        """Note that something is accepted and changes nothing: it must not look as if it did."""
        instead = "it is read and kept, and changes nothing until a later version"
        self.notes.append(warning(place, f"{what} is not enforced yet", None, instead))


def nothing_in(node: Node) -> Entries:
    return Entries(place=node.place, entries=())


def _entries(node: Node) -> Entries | None:
    if isinstance(node, Scalar) and node.kind is Kind.NOTHING:
        return nothing_in(node)
    return node if isinstance(node, Entries) else None
