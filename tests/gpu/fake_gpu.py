"""A GPU that is none: what a real one would refuse, launch, wait for and keep is seen on machines without one.

    with FakeGPU() as gpu:
        stylizer = method.build(assets, torch.device("cuda"))
        with gpu.count() as found:
            stylizer(images, generators)
    assert found.waits <= 2

Its tensors say to Python that they are on cuda:0, and are the CPU's underneath, where autograd needs no driver.
Arithmetic is real, so that loops that look at numbers run as they do. Only what goes through torch's dispatcher
is seen: not time, rounding, layouts, nor what libraries choose. Autocast is the CPU's.
"""

from __future__ import annotations

import contextlib
import math
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.gpu.fake_graphs import FakeGraph, FakeStream, aside, recording, tensors_of

__all__ = ["CPU", "CUDA", "FakeGPU", "Found", "OnGPU", "WrongDevice"]

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
_NO_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "set_"}
_NO_KERNEL |= {"lift_fresh", "_local_scalar_dense", "_unsafe_view"}
_SOLVERS = {"_linalg_eigh", "_linalg_svd", "linalg_qr", "linalg_inv_ex", "_linalg_solve_ex"}
"""Solvers, which wait for their own error codes."""
_SIZED = {"nonzero", "masked_select", "_unique2", "unique_dim"}
"""Functions whose results' sizes are waited for."""
_INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}


class _OnlyThere:
    """An operation that CPUs have not, and what gives the same."""

    is_view = False

    def __init__(self, op: Any, same: Callable[..., Any]) -> None:
        self._schema, self._same = op._schema, same

    def __call__(self, *args: Any) -> Any:
        return self._same(*args)


_aten = torch.ops.aten
_ONLY_THERE = {
    op: _OnlyThere(op, same)
    for op, same in (
        # Products of half precision that come out in float32.
        (_aten.mm.dtype, lambda a, b, dtype: _aten.mm(a.to(dtype), b.to(dtype))),
        (_aten.bmm.dtype, lambda a, b, dtype: _aten.bmm(a.to(dtype), b.to(dtype))),
        (_aten.cudnn_convolution_relu.default, lambda *args: torch.conv2d(*args).relu_()),
    )
}


class WrongDevice(AssertionError):
    """An operation on tensors of the GPU and of the CPU, which a GPU refuses."""


@dataclass
class Found:
    """What was seen of the GPU."""

    kernels: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    """Waits for all that the GPU has to do, by what and where."""
    solving: Counter[str] = field(default_factory=Counter)
    """Waits within solvers, which nobody can leave out who uses one; not among `waiting`."""
    bytes_over: int = 0
    """Bytes to the GPU or back."""
    peak_bytes: int = 0
    """Most memory at once, beyond what was taken before."""
    float64: Counter[str] = field(default_factory=Counter)
    """Kernels in float64 of more than one number."""

    @property
    def launches(self) -> int:
        return self.kernels.total()

    @property
    def waits(self) -> int:
        return self.waiting.total()


class FakeGPU(TorchFunctionMode):
    """The GPU, as long as this context lasts.

    Args:
        memory_bytes: more at once is a `torch.OutOfMemoryError`.
    """

    current: FakeGPU | None = None

    def __init__(self, memory_bytes: int | None = None) -> None:
        super().__init__()
        self.memory_bytes = memory_bytes
        self.live = self.peak = self.allocations = 0
        self.fails_at: int | None = None
        """Number of the allocation, from 1, that is out of memory."""
        self.taken: dict[int, int] = {}
        """Bytes that are taken, by where."""
        self._counting: list[Found] = []
        self._under_way: list[tuple[Tensor, Tensor]] = []
        """Copies to the CPU that nobody has waited for, and what will be there."""
        self._patches = contextlib.ExitStack()

    @contextlib.contextmanager
    def count(self) -> Iterator[Found]:
        found, before = Found(), self.live
        self.peak = before
        self._counting.append(found)
        try:
            yield found
        finally:
            self._counting.pop()
            found.peak_bytes = self.peak - before

    def __enter__(self) -> FakeGPU:
        real = torch.autocast.__init__

        def autocast(this: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
            real(this, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

        grouped = torch.nn.utils.clip_grad._group_tensors_by_device_and_dtype

        def on_gpu(lists: Any, *args: Any) -> Any:
            """Tensors by the device that they say."""
            found = grouped(lists, *args)
            return {(each[0][0].device, dtype): (each, at) for (_, dtype), (each, at) in found.items()}

        for target, name, new in (
            (torch.nn.utils.clip_grad, "_group_tensors_by_device_and_dtype", on_gpu),
            (torch.autocast, "__init__", autocast),
            (torch.cuda, "synchronize", self._synchronize),
            (torch.cuda, "empty_cache", lambda: None),
            (torch.cuda, "get_device_capability", lambda *_: (9, 0)),
            (torch.cuda, "get_device_properties", lambda *_: SimpleNamespace(total_memory=80 << 30)),
            (torch.cuda, "get_per_process_memory_fraction", lambda *_: 1.0),
            (torch.cuda, "CUDAGraph", self._graph),
            (torch.cuda, "Stream", FakeStream),
            (torch.cuda, "current_stream", FakeStream),
            (torch.cuda, "stream", aside),
        ):
            self._patches.enter_context(mock.patch.object(target, name, new))
        # Modules get new parameters: those that they have cannot become tensors of another class.
        future = torch.__future__
        self._patches.callback(
            future.set_overwrite_module_params_on_conversion, future.get_overwrite_module_params_on_conversion()
        )
        future.set_overwrite_module_params_on_conversion(True)
        FakeGPU.current = self
        super().__enter__()
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)
        FakeGPU.current = None
        self._patches.close()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What makes tensors of the GPU of nothing, and of those of the CPU."""
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name in _SPECIAL and args and isinstance(args[0], Tensor):
            return _SPECIAL[name](self, func, args, kwargs)
        if kwargs.get("device") is None or torch.device(kwargs["device"]).type != "cuda":
            return func(*args, **kwargs)
        if kwargs.get("generator") is not None:
            raise WrongDevice(f"{name} at {_where()}: the generator is the CPU's")
        made = func(*args, **{**kwargs, "device": CPU})
        graph = recording()
        if name in ("tensor", "as_tensor"):
            self.wait(f"{name} to the GPU", made.nbytes)
        elif graph is not None:
            graph.keep(made)
        else:
            self.launch(name, made)
        return self.wrap(made)

    def _graph(self) -> FakeGraph:
        return FakeGraph(lambda: self.launch("graph", None))

    # Bookkeeping

    def wrap(self, inner: Tensor) -> OnGPU:
        storage = inner.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key not in self.taken:
            self.allocations += 1
            full = self.memory_bytes is not None and self.live + size > self.memory_bytes
            if full or self.allocations == self.fails_at:
                raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {size} bytes")
            self.taken[key] = size
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._free, key)
        made = OnGPU(inner)
        made._storage_kept = storage  # whose end is looked for
        return made

    def _synchronize(self, *_: object) -> None:
        """What is left to do of a way back that was broken off lies in the CPU's queue until the next one
        throws it away, as a GPU's own thread does at once."""
        with torch._C.DisableTorchFunction():
            torch.ones((), requires_grad=True).backward()
        self.wait("synchronize")

    def adopted(self, each: Tensor) -> Tensor:
        """Zeros that autograd itself makes, on the way back, in the place of a gradient that nobody gave, as a
        tensor of the GPU; others as they are."""
        return each if _is_on(each) or each.ndim == 0 or bool(each.any()) else self.wrap(each)

    def _free(self, key: int) -> None:
        self.live -= self.taken.pop(key, 0)

    def wait(self, what: str, nbytes: int = 0, *, solver: bool = False) -> None:
        graph = recording()
        if graph is not None:
            graph.refuse(f"CUDA error: operation not permitted when stream is capturing: {what} at {_where()}")
        for target, source in self._under_way:
            target.copy_(source)
        self._under_way.clear()
        for found in self._counting:
            (found.solving if solver else found.waiting)[f"{what} at {_where()}"] += 1
            found.bytes_over += nbytes

    def launch(self, name: str, out: Any) -> None:
        for found in self._counting:
            found.kernels[name] += 1
            if isinstance(out, Tensor) and out.dtype == torch.float64 and out.numel() > 1:
                found.float64[f"{name} at {_where()}"] += 1

    def send(self, inner: Tensor, kept: dict[str, Any], *, back: bool, non_blocking: bool) -> Tensor:
        """A tensor's copy on the other device. One to the CPU without waiting has no values until somebody has
        waited."""
        graph = recording()
        if graph is not None:
            graph.refuse("Cannot copy between CPU and CUDA tensors during CUDA graph capture")
        moved = inner.detach().to(**kept, copy=True)
        if not non_blocking:
            self.wait("copy to the CPU" if back else "copy to the GPU", inner.nbytes)
        else:
            for found in self._counting:
                found.bytes_over += inner.nbytes
            if back:
                self._under_way.append((moved, moved.clone()))
                moved.fill_(torch.nan if moved.is_floating_point() else 1)
        return moved if back else self.wrap(moved)


class OnGPU(Tensor):
    """`inner`, a tensor of the CPU, that says it is on a GPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        made: OnGPU = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=CPU,
        )
        made.inner = inner
        return made

    device = property(lambda _: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda _: True)  # type: ignore[assignment]
    is_cpu = property(lambda _: False)  # type: ignore[assignment]

    def __repr__(self, *_: Any, **__: Any) -> str:
        return f"OnGPU({tuple(self.shape)}, {self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        copied: Any = _gpu().wrap(self.inner.clone()).requires_grad_(self.requires_grad)
        if getattr(self, "_is_param", False):
            copied._is_param = True
        memo[id(self)] = copied
        return copied  # type: ignore[no-any-return]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Where the mode is not, as on the way back through functions of our own."""
        special = _SPECIAL.get(getattr(func, "__name__", ""))
        if special is not None:
            return special(_gpu(), func, args, dict(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu, kwargs, name = _gpu(), kwargs or {}, func._schema.name.split("::")[-1]
        if torch._C._current_autograd_node() is not None:
            args, kwargs = _mapped(gpu.adopted, args), _mapped(gpu.adopted, kwargs)
        if name in ("_local_scalar_dense", "equal", "is_nonzero"):
            gpu.wait(name, args[0].element_size())
        given = [*tensors_of(args), *tensors_of(kwargs)]
        strangers = [each for each in given if not _is_on(each) and each.ndim > 0]
        if name == "copy_" and strangers:
            return _copied(gpu, *args)
        if strangers and name in _INDEXING and not any(each.is_floating_point() for each in strangers):
            gpu.wait(f"{name} by a tensor of the CPU")
        elif strangers:
            shapes = [tuple(each.shape) for each in strangers]
            raise WrongDevice(f"{func} at {_where()}: {shapes} are on the CPU")
        if name == "_upsample_bilinear2d_aa":
            _refuse_shrinking(args[0], args[1])
        bare = _mapped(_bare, args), _mapped(_bare, kwargs)
        func = _ONLY_THERE.get(func, func)
        out = func(*bare[0], **bare[1])
        graph = recording()
        if graph is not None:
            graph.note(func, bare[0], bare[1], out, gpu.taken)
        elif not (func.is_view or name in _NO_KERNEL):
            gpu.launch(name, next(tensors_of(out), None))
        by_mask = name in _INDEXING and any(each.dtype == torch.bool for each in given[1:])
        if name in _SOLVERS or name in _SIZED or by_mask:
            gpu.wait(name, solver=name in _SOLVERS)
        if func._schema.is_mutable and len(func._schema.returns) == 1 and isinstance(out, Tensor):
            return kwargs.get("out", args[0])
        return _mapped(gpu.wrap, out)


def _refuse_shrinking(image: Tensor, size: list[int]) -> None:
    """What threads of a block share is to hold the weights of a pixel, down and across, and sums of rows: see
    torch's UpSampleBilinear2d.cu."""
    down, across = (
        2 * math.ceil(max(1.0, side / wanted)) + 1 for side, wanted in zip(image.shape[2:], size, strict=True)
    )
    needs = (32 * across + 33 * down) * image.element_size()
    if needs > 48 << 10:
        raise RuntimeError(f"Please reduce the scale factor. Too much shared memory required: {needs}")


def _gpu() -> FakeGPU:
    assert FakeGPU.current is not None, "a tensor of the fake GPU is used outside of it"
    return FakeGPU.current


def _is_on(each: object) -> bool:
    return isinstance(each, OnGPU)


def _bare(each: Tensor) -> Tensor:
    return each.inner if isinstance(each, OnGPU) else each


def _mapped(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """`value` with its tensors changed: torch's own `tree_map` takes six times as long, for each operation."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, (list, tuple)):
        return type(value)([_mapped(change, each) for each in value])
    if isinstance(value, dict):
        return {key: _mapped(change, each) for key, each in value.items()}
    return value


def _where() -> str:
    """File and line of the project's code that is running."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        path = frame.f_code.co_filename
        if ("/nst/" in path or "/jobs/" in path) and "/site-packages/" not in path:
            return f"{'/'.join(path.split('/')[-2:])}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


def _copied(gpu: FakeGPU, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    inner = source.inner if isinstance(source, OnGPU) else source
    moved = gpu.send(inner, {}, back=_is_on(source), non_blocking=non_blocking and not _is_on(source))
    if isinstance(target, OnGPU):
        assert isinstance(moved, OnGPU)
        target.inner.copy_(moved.inner)
    else:
        target.copy_(moved)
    return target


# What must not come to C++ as it is


def _to(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
    x, *rest = args
    other = kwargs.pop("other", None)
    if rest and isinstance(rest[0], Tensor):
        other = rest.pop(0)
    if other is not None:
        rest = [other.device, other.dtype, *rest]
    copy = kwargs.pop("copy", False)
    device, dtype, non_blocking, layout = torch._C._nn._parse_to(*rest, **kwargs)
    before = isinstance(x, OnGPU)
    after = before if device is None else device.type == "cuda"
    kept = {"dtype": dtype or x.dtype, **({"memory_format": layout} if layout is not None else {})}
    with torch._C.DisableTorchFunction():
        if before == after:
            return x.to(**kept, copy=copy)
        inner = x.inner if before else x
        found = gpu.send(inner, kept, back=before, non_blocking=non_blocking)
        return found.requires_grad_(x.requires_grad and found.is_floating_point())


def _cpu(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return _to(gpu, func, (args[0], CPU), kwargs)


def _cuda(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    return _to(gpu, func, (args[0], CUDA), kwargs)


def _new_tensor(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunction():
        if not _is_on(args[0]):
            return func(*args, **kwargs)
        made = torch.tensor(args[1], dtype=kwargs.get("dtype") or args[0].dtype)
        gpu.wait("new_tensor", made.nbytes)
        return gpu.wrap(made)


def _tolist(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunction():
        if not _is_on(args[0]):
            return func(*args, **kwargs)
        gpu.wait("tolist", args[0].inner.nbytes)
        return args[0].inner.detach().tolist()


def _numpy(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
    if _is_on(args[0]):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")
    with torch._C.DisableTorchFunction():
        return func(*args, **kwargs)


def _pin_memory(gpu: FakeGPU, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:  # noqa: ARG001
    return args[0]


_SPECIAL = {
    "to": _to,
    "cpu": _cpu,
    "cuda": _cuda,
    "new_tensor": _new_tensor,
    "tolist": _tolist,
    "numpy": _numpy,
    "pin_memory": _pin_memory,
}
