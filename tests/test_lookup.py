"""What settings name is looked up in one way, which says what there is."""

import pytest

from libragrad_lightning.lookup import named

TABLE = {"two": 2, "one": 1}


def test_an_entry_is_found_by_its_name():
    assert named(TABLE, "two", "number") == 2


@pytest.mark.parametrize(("kind", "said"), [("", "number"), ("natural number", "natural number")])
def test_an_unknown_name_is_told_with_all_there_are(kind, said):
    message = rf"^Unknown {said} 'three'; `number` takes one of \['one', 'two'\]\.$"
    with pytest.raises(ValueError, match=message):
        named(TABLE, "three", "number", kind)
