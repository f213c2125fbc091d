"""Several devices on a machine that has none: tensors that are on `fake:0`, `fake:1`, … and hold CPU tensors.

An operation that mixes devices raises where CUDA's would, and whatever crosses between devices or makes the host wait
is noted down. The numbers are the CPU's. `register` is for the whole process and for good: call it in one of its own.
"""

from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

CPU = torch.device("cpu")
_aten = torch.ops.aten
_INDEXED = (_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_)
_WAITS = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
"""Tags of operations whose result the host has to know: `item`, `nonzero`, `masked_select`, `equal`, …"""


class _Module(backend_registration._DummyBackendModule):
    def device_count(self):
        return 8

    def get_amp_supported_dtype(self):
        return [torch.float16, torch.bfloat16]

    def get_rng_state(self):
        return torch.zeros(16, dtype=torch.uint8)  # random numbers are the CPU's here, too


def register():
    """Make `fake` the name of a device type with several devices."""
    backend_registration._setup_privateuseone_for_python_backend("fake", backend_module=_Module())


class Crossing(NamedTuple):
    """A copy from device to device, or a value or a size that the host read: its target is the CPU."""

    source: torch.device
    target: torch.device
    name: str
    """The operation."""
    waits: bool
    """Whether the host waits until the device has done what was asked of it before."""
    place: str


class OnDevice(torch.Tensor):
    """A tensor on a fake device; `held` is on the CPU, with the same shape and strides."""

    @staticmethod
    def __new__(cls, held, device=None, *, requires_grad=False):
        if isinstance(held, OnDevice):  # accelerate makes a parameter anew with the type of the old one
            return torch.nn.Parameter(held, requires_grad)
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset(), "dtype": held.dtype}
        with torch.inference_mode(mode=False):  # a view, in that mode too, is of the kind of its base
            tensor = torch.Tensor._make_wrapper_subclass(cls, held.shape, device=device, **layout)
        tensor.held = held
        return tensor

    def data_ptr(self):
        return self.held.data_ptr()

    def tolist(self):
        return self.cpu().tolist()

    def __format__(self, spec):
        return format(self.cpu(), spec)

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func}: tensors of fake devices are of use within `devices()` alone")


@contextmanager
def devices():
    """Let the devices work, and yield what crosses between them: a `Crossings`."""
    with Crossings() as crossings, _Functions():
        yield crossings


class Crossings(TorchDispatchMode):
    """Runs every operation on the CPU tensors that are held, and notes what crosses."""

    def __init__(self):
        super().__init__()
        self.seen = []
        self.place = ""
        """Where the program is, as whoever uses this sets it; noted with each crossing."""

    def note(self, source, target, func, *, asynchronous=False):
        if source != target:
            waits = target == CPU or (source == CPU and not asynchronous)
            self.seen.append(Crossing(source, target, str(func), waits, self.place))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode operations come whole that are made of others
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        device = _with_index(kwargs.get("device"))
        if func is _aten._to_copy.default:
            device = device or args[0].device
            self.note(args[0].device, device, func, asynchronous=kwargs.get("non_blocking"))
        elif func is _aten.copy_.default:
            device = args[0].device
            self.note(args[1].device, device, func, asynchronous=(*args, False)[2])
        elif func.overloadpacket in _INDEXED:
            device = self._indexed(args, func)
        else:
            common = _common_device(func, tensors)
            device = device or common
            if _waits(func, args):
                self.note(common, CPU, func)
        held = func(*tree_map(_held, args), **tree_map(_held, kwargs))
        given = {id(_held(tensor)): tensor for tensor in tensors}  # what is written to in place comes back itself
        result = tree_map(lambda one: given.get(id(one)) if id(one) in given else _on(device, one), held)
        for tensor in tensors:
            if isinstance(tensor, OnDevice) and tensor.shape != tensor.held.shape:
                raise NotImplementedError(f"{func} changes the shape of a tensor in place")
        return result

    def _indexed(self, args, func):
        """CUDA takes indices, and a number to write, from the CPU too; a mask is first counted by the host."""
        tensor, indices, *values = args
        device = tensor.device
        for index in indices:
            if index is None:
                continue
            if index.device not in (device, CPU):
                raise _mixed(func, device, index.device)
            self.note(index.device, device, func)
            if index.dtype == torch.bool:
                self.note(device, CPU, func)
        for value in values[:1]:
            if value.device != device and (value.device != CPU or value.dim()):
                raise _mixed(func, device, value.device)
            self.note(value.device, device, func)
        return device


class _Functions(TorchFunctionMode):
    """What a dispatch mode does not see, or sees as other operations than on a device with kernels of its own."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            own, data = (args[0].device, args[1]) if func is torch.Tensor.new_tensor else (None, args[0])
            device = _with_index(kwargs.pop("device", own))
            if not isinstance(data, torch.Tensor):
                data = tree_map(lambda one: one.cpu() if isinstance(one, OnDevice) else one, data)
            made = (torch.as_tensor if func is torch.as_tensor else torch.tensor)(data, **kwargs)
            return made if device is None else made.to(device)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], OnDevice):
            tensor, index, *value = args
            places = index if isinstance(index, tuple) else (index,)
            lists = [torch.tensor(one).to(tensor.device) if isinstance(one, list) else one for one in places]
            args = tensor, tuple(lists), *value
        if func is scaled_dot_product_attention:
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
            device = _common_device(_aten.scaled_dot_product_attention.default, tensors)
            return _on(device, func(*tree_map(_held, args), **tree_map(_held, kwargs)))
        return func(*args, **kwargs)


def _common_device(func, tensors):
    """The one device of all; to element-wise operations a number on the CPU, if not written to, is as Python's own."""
    device = next((tensor.device for tensor in tensors if tensor.device != CPU), CPU)
    for place, tensor in enumerate(tensors):
        written = func._schema.is_mutable and place == 0
        number = tensor.device == CPU and not tensor.dim() and not written and torch.Tag.pointwise in func.tags
        if tensor.device != device and not number:
            raise _mixed(func, device, tensor.device)
    return device


def _mixed(func, *found):
    return RuntimeError(f"Expected all tensors to be on the same device, but found {found[0]} and {found[1]}: {func}")


def _waits(func, args):
    if func.overloadpacket is _aten.isin:  # many elements are looked up in a sorted list of unique ones
        elements, tests = (one.numel() if isinstance(one, torch.Tensor) else 1 for one in args[:2])
        return tests >= 10 * elements**0.145
    read_value = func is _aten.masked_fill_.Tensor or func is _aten.masked_fill.Tensor
    return bool(_WAITS & set(func.tags)) or (read_value and args[2].device != CPU)


def _with_index(device):
    if device is None:
        return None
    device = torch.device(device)
    return torch.device(device.type, device.index or 0) if device.type == "fake" else device


def _held(one):
    if isinstance(one, OnDevice):
        return one.held
    return CPU if isinstance(one, torch.device) and one.type == "fake" else one


def _on(device, one):
    return OnDevice(one, device) if isinstance(one, torch.Tensor) and device != CPU else one
