"""One driver at a time for a sweep folder in an object store, by conditional writes."""

from __future__ import annotations

import json
from typing import Any

from plmray.storage import layout
from plmray.storage.lock import Held, Owner, parse_owner
from plmray.storage.object_store import ObjectStore, StoreError


class StoreLock:
    """A lock object, made and replaced only if nobody else did: the store decides who was first."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._beats = 0

    @property
    def home(self) -> str:
        return self.store.url

    def read(self) -> Held | None:
        import obstore

        try:
            found, content = self.store.asked(lambda: _with_content(obstore.get(self.store.client, layout.LOCK)))
        except FileNotFoundError:
            return None
        return Held(parse_owner(content), json.dumps([found.meta["e_tag"], found.meta["version"]]))

    def create(self, owner: Owner) -> bool:
        return self._put(owner, "create")

    def remove(self, held: Held) -> None:
        """Conditional deletes are not for every store: what was seen is first replaced by nobody's lock."""
        if self._put({"token": "ended"}, _version(held)):
            self.store.delete([layout.LOCK])

    def beat(self, owner: Owner) -> None:
        self._beats += 1
        held = self.read()
        if held is not None and held.token == owner["token"]:
            self._put({**owner, "beats": self._beats}, _version(held))

    def _put(self, owner: Owner, mode: Any) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        content = json.dumps(dict(owner)).encode()
        try:
            self.store.asked(lambda: obstore.put(self.store.client, layout.LOCK, content, mode=mode))
        except StoreError as error:
            if isinstance(error.__cause__, AlreadyExistsError | PreconditionError):
                return False
            raise
        return True


def _with_content(found: Any) -> tuple[Any, bytes]:
    return found, bytes(found.bytes())


def _version(held: Held) -> dict[str, str]:
    e_tag, version = json.loads(held.mark)
    return {name: value for name, value in (("e_tag", e_tag), ("version", version)) if value is not None}
