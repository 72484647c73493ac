from collections.abc import Callable, Iterator
from typing import Any

class ExtType:
    code: int
    data: bytes
    def __new__(cls, code: int, data: bytes) -> ExtType: ...

class Packer:
    def __init__(
        self,
        *,
        default: Callable[[Any], Any] | None = ...,
        use_bin_type: bool = ...,
        strict_types: bool = ...,
        datetime: bool = ...,
        buf_size: int = ...,
    ) -> None: ...
    def pack(self, o: object) -> bytes: ...

class Unpacker(Iterator[Any]):
    def __init__(
        self,
        *,
        raw: bool = ...,
        use_list: bool = ...,
        strict_map_key: bool = ...,
        ext_hook: Callable[[int, bytes], Any] = ...,
        max_buffer_size: int = ...,
        max_array_len: int = ...,
        max_map_len: int = ...,
        max_ext_len: int = ...,
    ) -> None: ...
    def feed(self, data: bytes) -> None: ...
    def read_array_header(self) -> int: ...
    def skip(self) -> None: ...
    def tell(self) -> int: ...
    def __next__(self) -> Any: ...

class UnpackException(Exception): ...
class FormatError(ValueError, UnpackException): ...
class StackError(ValueError, UnpackException): ...
class ExtraData(UnpackException, ValueError): ...
class OutOfData(UnpackException): ...

def packb(
    o: object,
    *,
    default: Callable[[Any], Any] | None = ...,
    use_bin_type: bool = ...,
    strict_types: bool = ...,
    datetime: bool = ...,
) -> bytes: ...
def unpackb(
    packed: bytes | bytearray | memoryview,
    *,
    raw: bool = ...,
    use_list: bool = ...,
    strict_map_key: bool = ...,
    timestamp: int = ...,
    ext_hook: Callable[[int, bytes], Any] = ...,
    object_hook: Callable[[dict[Any, Any]], Any] | None = ...,
    max_array_len: int = ...,
    max_map_len: int = ...,
    max_ext_len: int = ...,
) -> Any: ...
