"""What every store must do."""

from __future__ import annotations

import threading
import time

import pytest

from jobs.stores.store import Store


class StoreContract:
    """Inherit, and provide the fixture `store`."""

    def test_publishes_and_reads_back(self, store: Store) -> None:
        store.publish("a/b/c d+é%#.bin", b"one")
        assert store.read("a/b/c d+é%#.bin") == b"one"
        assert store.exists("a/b/c d+é%#.bin")
        with store.open("a/b/c d+é%#.bin") as handle:
            handle.seek(1)
            assert handle.read() == b"ne"

    def test_publish_replaces(self, store: Store) -> None:
        store.publish("x", b"one")
        store.publish("x", b"two")
        assert store.read("x") == b"two"

    def test_create_only_leaves_what_is_there(self, store: Store) -> None:
        store.publish("x", b"one", create_only=True)
        with pytest.raises(FileExistsError):
            store.publish("x", b"two", create_only=True)
        assert store.read("x") == b"one"

    def test_create_only_has_one_winner(self, store: Store) -> None:
        won: list[int] = []
        start = threading.Barrier(8)

        def race(number: int) -> None:
            start.wait()
            try:
                store.publish("race", b"%d" % number, create_only=True)
            except FileExistsError:
                return
            won.append(number)

        threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read("race") == b"%d" % won[0]

    def test_finds_all_below_a_folder(self, store: Store) -> None:
        paths = {"f/b", "f/g/x y#.bin", "f/g/h/z", "other", "ff/x"}
        for path in paths:
            store.publish(path, b"-")
        assert {path for path in store.find() if not path.startswith(".tmp/")} == paths
        assert set(store.find("f")) == {"f/b", "f/g/x y#.bin", "f/g/h/z"}
        assert list(store.find("nowhere")) == []

    def test_names_are_those_of_one_folder(self, store: Store) -> None:
        for path in ("f/b", "f/a", "f/g/x", "other"):
            store.publish(path, b"-")
        assert store.names("f") == ["a", "b", "g"]
        assert store.names("nowhere") == []
        assert {"f", "other"} <= set(store.names(""))

    def test_a_new_object_is_listed_at_once(self, store: Store) -> None:
        assert store.names("f") == []
        store.publish("f/a", b"-")
        assert store.names("f") == ["a"]

    def test_missing_objects(self, store: Store) -> None:
        assert not store.exists("nothing")
        with pytest.raises(FileNotFoundError):
            store.read("nothing")
        with pytest.raises(FileNotFoundError):
            store.open("nothing").read()

    def test_remove(self, store: Store) -> None:
        store.publish("x", b"one")
        store.remove("x")
        store.remove("x")
        assert not store.exists("x")

    def test_tells_how_old_an_object_is(self, store: Store) -> None:
        """By its own clock: against one written now."""
        store.publish("x", b"one")
        first = store.age_s("x")
        time.sleep(1.2)
        second = store.age_s("x")
        assert first is not None
        assert second is not None
        assert 0 <= first < second < 60
        with pytest.raises(FileNotFoundError):
            store.age_s("nothing")
        assert store.names("") == ["x"] or store.names(".tmp") == []

    def test_leaves_nothing_else_behind(self, store: Store) -> None:
        store.publish("a/x", b"one")
        store.publish("a/y", b"one", create_only=True)
        with pytest.raises(FileExistsError):
            store.publish("a/y", b"two", create_only=True)
        store.clean()
        assert store.names("a") == ["x", "y"]
        assert store.names("") == ["a"]
