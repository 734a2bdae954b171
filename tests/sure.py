"""What a test knows and a type checker cannot: that something which may be absent is there."""

from typing import TypeVar

T = TypeVar("T")


def there(found: T | None) -> T:
    assert found is not None
    return found
